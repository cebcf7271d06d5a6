//! A session store in Redis or Valkey: its servers, its statements, its errors, and its notices.

mod address;
mod connections;
mod fault;
mod notices;
mod redis_backend;
mod redis_store;
mod scripts;
mod slot;

pub use redis_store::RedisStore;
