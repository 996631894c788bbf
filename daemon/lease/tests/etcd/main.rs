//! What several agents share, on real etcd servers: one and three members, frozen, slow, lost, full, restored.

mod agents;
mod faults;
mod identity;
mod orders;
mod proxy;
mod record;
mod servers;
mod tenure;
mod testimony;
mod writes;
