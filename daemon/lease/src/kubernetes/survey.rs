//! Whether this agent may do in the namespace what it will have to do; asked, not tried.
//!
//! **Invariant:** nothing is written: the API server is asked what it would say (`SelfSubjectAccessReview`).

use futures::future::join_all;
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use k8s_openapi::api::coordination::v1::Lease;
use lifeboat_engine::ports::CoordinationError;

use super::Kubernetes;

/// What is done to which objects, by group, resource and verb; the second list is limited to the Lease's own name.
const ANY: [(&str, &str, &str); 7] = [
    ("coordination.k8s.io", "leases", "create"),
    ("", "configmaps", "get"),
    ("", "configmaps", "list"),
    ("", "configmaps", "watch"),
    ("", "configmaps", "create"),
    ("", "configmaps", "update"),
    ("", "configmaps", "delete"),
];
const NAMED: [&str; 4] = ["get", "list", "watch", "update"];

/// What the API server says to this agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLook {
    /// Whether somebody has ever decided here.
    pub begun: bool,
    /// What this agent may not do, each as "verb resource".
    pub forbidden: Vec<String>,
}

impl Kubernetes {
    /// Reads the Lease, and asks for each right that is needed.
    ///
    /// # Errors
    /// When the API server cannot be reached, or refuses who we are.
    pub async fn survey(&self) -> Result<ServerLook, CoordinationError> {
        let any = ANY.map(|(group, resource, verb)| (group, resource, verb, None));
        let named =
            NAMED.map(|verb| ("coordination.k8s.io", "leases", verb, Some(self.names.lease().to_owned())));
        let asked = any.into_iter().chain(named);
        let asked = asked.map(|(group, resource, verb, name)| async move {
            let attributes = ResourceAttributes {
                group: Some(group.to_owned()),
                name,
                namespace: Some(self.access.namespace().to_owned()),
                resource: Some(resource.to_owned()),
                verb: Some(verb.to_owned()),
                ..ResourceAttributes::default()
            };
            let allowed = self.access.allows(attributes).await?;
            Ok::<_, CoordinationError>((!allowed).then(|| format!("{verb} {resource}")))
        });
        let answers = join_all(asked).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let forbidden: Vec<String> = answers.into_iter().flatten().collect();
        // Without the right to read it, whether it is there is not known, and not needed.
        let readable = !forbidden.iter().any(|right| right == "get leases");
        let begun = readable && self.access.get::<Lease>(self.names.lease()).await?.is_some();
        Ok(ServerLook { begun, forbidden })
    }
}
