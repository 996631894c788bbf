//! What several agents share: whether each member of etcd, or the Kubernetes API, would do, and whether this agent has the
//! key it is known by.

use std::sync::Arc;

use lifeboat_config::Wiring;
use lifeboat_config::wiring::{EtcdWiring, KubernetesWiring, LeaseWiring};
use lifeboat_engine::ports::CoordinationError;
use lifeboat_lease::etcd::{MemberLook, survey};
use lifeboat_lease::kubernetes::ServerLook;

use super::Finding;
use crate::failure::Failure;
use crate::sharing;

/// The oldest etcd that has all that is used here (transactions over leases, watches that know that there is no leader).
const OLDEST: (u64, u64) = (3, 4);

/// etcd's own limit when none is configured is 2 GiB; half of it is worth a word.
const LARGE: i64 = 1 << 30;

pub(super) async fn look(wiring: &Wiring) -> Vec<Finding> {
    match &wiring.lease {
        LeaseWiring::Embedded => Vec::new(),
        LeaseWiring::Etcd(etcd) => look_at_etcd(wiring, etcd).await,
        LeaseWiring::Kubernetes(kubernetes) => look_at_cluster(wiring, kubernetes).await,
    }
}

async fn look_at_cluster(wiring: &Wiring, kubernetes: &KubernetesWiring) -> Vec<Finding> {
    let mut findings = vec![own_key(wiring)];
    // Without the key there is nothing to open it with; that is told already.
    let Ok(seal) = sharing::seals(wiring) else { return findings };
    findings.push(match sharing::cluster(kubernetes, &wiring.agent.name, Arc::new(seal)).await {
        Ok(cluster) => judge_cluster(kubernetes, cluster.survey().await),
        Err(failure) => Finding::Failed(told(&failure)),
    });
    findings
}

fn judge_cluster(wiring: &KubernetesWiring, look: Result<ServerLook, CoordinationError>) -> Finding {
    let place = format!("the Kubernetes API, Lease {} in namespace {}", wiring.name, wiring.namespace);
    match look {
        Err(error) => Finding::Failed(format!("{place}: {error}")),
        Ok(look) if !look.forbidden.is_empty() => Finding::Failed(format!(
            "{place}: this agent may not {}; the rights it needs are in deploy/kubernetes/rbac.yaml",
            look.forbidden.join(", ")
        )),
        Ok(look) if look.begun => Finding::Good(format!("{place}: all rights are there")),
        Ok(_) => Finding::Good(format!("{place}: all rights are there; nobody has decided here yet")),
    }
}

async fn look_at_etcd(wiring: &Wiring, etcd: &EtcdWiring) -> Vec<Finding> {
    let looks = survey(&sharing::etcd_options(etcd, &wiring.agent.name)).await;
    let mut findings = vec![own_key(wiring)];
    let good: Vec<&MemberLook> = looks.iter().filter_map(|(_, look)| look.as_ref().ok()).collect();
    let majority = looks.len() / 2 + 1;
    if let Some(first) = good.first()
        && good.iter().any(|look| look.cluster != first.cluster)
    {
        findings.push(Finding::Failed("the endpoints of etcd belong to more than one cluster".to_owned()));
    }
    let enough = good.len() >= majority;
    findings.extend(looks.iter().map(|(endpoint, look)| match look {
        Ok(look) => judge(endpoint, look),
        Err(error) => missing(endpoint, error, enough),
    }));
    if !enough {
        let text = format!(
            "{} of {} members of etcd are of use; below {majority} nothing can be decided",
            good.len(),
            looks.len()
        );
        findings.push(Finding::Failed(text));
    }
    findings
}

fn own_key(wiring: &Wiring) -> Finding {
    match sharing::seals(wiring) {
        Ok(_) => Finding::Good(format!("{} has the key that is listed for it", wiring.agent.name)),
        Err(failure) => Finding::Failed(told(&failure)),
    }
}

fn told(failure: &Failure) -> String {
    let causes: String = failure.causes.iter().map(|cause| format!(": {cause}")).collect();
    format!("{}{causes}", failure.message)
}

fn judge(endpoint: &str, look: &MemberLook) -> Finding {
    let text = |more: &str| format!("etcd {endpoint}, version {}, {more}", look.version);
    if look.corrupt {
        return Finding::Failed(text("says that its data is corrupt"));
    }
    if look.full {
        let more =
            "is full and takes no writes: compact it, then `etcdctl defrag` and `etcdctl alarm disarm`";
        return Finding::Failed(text(more));
    }
    if version(&look.version).is_none_or(|version| version < OLDEST) {
        return Finding::Failed(text(&format!("must be {}.{} or newer", OLDEST.0, OLDEST.1)));
    }
    if look.learner {
        return Finding::Warning(text("is only learning, and counts for no majority"));
    }
    let mebibytes = look.size >> 20;
    if look.size > LARGE {
        let more =
            format!("has {mebibytes} MiB: is its history compacted (--auto-compaction-retention=10m)?");
        return Finding::Warning(text(&more));
    }
    Finding::Good(text(&format!("answers, {mebibytes} MiB")))
}

/// A member that is of no use; a warning while the others are enough, unless it refused us.
fn missing(endpoint: &str, error: &CoordinationError, enough: bool) -> Finding {
    let text = format!("etcd {endpoint}: {error}");
    match error {
        CoordinationError::Unreachable(_) | CoordinationError::Unclear(_) if enough => Finding::Warning(text),
        _ => Finding::Failed(text),
    }
}

/// "3.4.30" as its first two numbers.
fn version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> MemberLook {
        MemberLook {
            version: "3.4.30".into(),
            cluster: 1,
            learner: false,
            size: 5 << 20,
            full: false,
            corrupt: false,
        }
    }

    #[test]
    fn a_member_is_judged_by_what_it_says() {
        let says = |look: MemberLook| format!("{:?}", judge("http://10.0.0.1:2379", &look));
        assert_eq!(says(member()), "Good(\"etcd http://10.0.0.1:2379, version 3.4.30, answers, 5 MiB\")");
        assert!(
            says(MemberLook { full: true, ..member() })
                .starts_with("Failed(\"etcd http://10.0.0.1:2379, version 3.4.30, is full")
        );
        assert!(says(MemberLook { corrupt: true, ..member() }).starts_with("Failed"));
        assert!(says(MemberLook { version: "3.3.27".into(), ..member() }).contains("must be 3.4 or newer"));
        assert!(says(MemberLook { version: "3.10.0".into(), ..member() }).starts_with("Good"));
        assert!(says(MemberLook { version: "new".into(), ..member() }).starts_with("Failed"));
        assert!(says(MemberLook { learner: true, ..member() }).starts_with("Warning"));
        assert!(says(MemberLook { size: 3 << 30, ..member() }).contains("3072 MiB"));
    }

    #[test]
    fn one_that_is_away_is_a_warning_while_the_others_are_enough() {
        let away = CoordinationError::Unreachable("http://10.0.0.1:2379: refused".into());
        assert!(!missing("x", &away, true).failed() && missing("x", &away, false).failed());
        let denied = CoordinationError::Denied("no such user".into());
        assert!(
            missing("x", &denied, true).failed(),
            "whoever is refused by one is refused by all, sooner or later"
        );
    }
}
