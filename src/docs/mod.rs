//! Guides: one page for each question that comes up once the first request works.

#[doc = include_str!("stack_order.md")]
pub mod stack_order {}
