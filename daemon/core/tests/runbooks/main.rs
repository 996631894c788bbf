//! Every page, carried out in a pretend world while everything goes wrong at every place: each step fails, is told
//! and done twice, the agent is killed after each record, once and again, a person cancels, outcomes are lost.
//!
//! Effects in this world last, and are judged by an oracle that knows nothing of the code: the same end as without
//! trouble, or a clean way back, or a person who was told; never two places that take writes.

mod case;
mod everywhere;
mod journal;
mod oracle;
mod page;
mod server;
mod trouble;
mod world;
