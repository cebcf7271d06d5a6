//! The crate among its neighbours: what the examples show, held to what they say.

mod stack_order;
