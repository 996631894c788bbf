//! The real loop with pretend ports, under tokio's paused time: it decides, writes down and acts as one.
//!
//! tokio's paused clock stands still while a blocking task (the journal) is at work, and jumps to the next
//! timer only when nothing can go on: so a life of hours takes a moment, and is the same every time.
//!
//! **Invariant:** pretend ports count effects apart from calls; a repeated call finds its effect there.

mod cast;
mod crash;
mod failover;
mod fences;
mod planned;
mod pretend;
mod setting;
mod several;
mod takeover;
mod trouble;
