//! The guardian alone, in a pretend world: what it does when things go wrong, in which order, and never.
//!
//! `pretend` is the world, `oracle` judges every decision made in it by rules of its own, the other files
//! are the scenarios. Nothing here waits: time is an argument.
//!
//! **Invariant:** every decision of every scenario passes the oracle, so a scenario only says what it is about.

mod by_hand;
mod council;
mod defects;
mod failover;
mod journal;
mod judged;
mod next;
mod oracle;
mod orders;
mod outage;
mod pretend;
mod questions;
mod restarts;
mod setting;
mod storm;
