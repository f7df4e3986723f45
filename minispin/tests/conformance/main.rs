//! minispin against real services, through a real guest: it answers what Spin 4.1 answered when it was asked
//! the same. A test that lacks a service fails and says what sets it up; none is skipped.

mod harness;

mod command_line;
mod http;
mod killed;
mod postgres;
mod redis;
mod serving;
