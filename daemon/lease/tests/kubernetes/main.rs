//! What several agents share in Kubernetes, against a real API server with a real etcd behind it.

mod cluster;
mod faults;
mod orders;
mod proxy;
mod record;
mod tenure;
mod testimony;
mod watching;
