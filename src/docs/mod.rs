//! Guides: one page for each question that comes up once the first request works.
