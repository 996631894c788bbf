//! One request to the API server at a time: guarded, bounded, and its failure called by its name.
//!
//! **Invariant:** an object is replaced or deleted only as it was read (`resourceVersion`), and no request is sent twice.
//! **Invariant:** what may have been written is never called not written.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::core::response::reason;
use kube::core::{ObjectList, Status};
use kube::{Api, Client, Resource, ResourceExt as _};
use lifeboat_engine::ports::CoordinationError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What all kinds of objects that are used here have in common.
pub(super) trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static
{
}

/// What came of a guarded write.
#[derive(Debug)]
pub(super) enum Written<K> {
    /// It is there, as it is now.
    Done(K),
    /// It is not: the object is another one than was read, or is there, or is not there any more.
    Lost,
}

/// A request, for those who read what came of it.
#[derive(Clone, Copy)]
struct Deed<'a> {
    verb: &'static str,
    name: &'a str,
    writes: bool,
}

/// The API server, as this agent may use it.
pub(super) struct Access {
    client: Client,
    namespace: String,
    limit: Duration,
}

impl Access {
    pub(super) const fn new(client: Client, namespace: String, limit: Duration) -> Self {
        Self { client, namespace, limit }
    }

    /// How long one request is waited for.
    pub(super) const fn limit(&self) -> Duration {
        self.limit
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The object as it is now (linearizable: no `resourceVersion` is asked for); none when there is none.
    pub(super) async fn get<K: Kind>(&self, name: &str) -> Result<Option<K>, CoordinationError> {
        let deed = Deed { verb: "get", name, writes: false };
        self.bounded::<K, _>(deed, self.api::<K>().get_opt(name)).await
    }

    /// What there is, as it is now, and the version that a watch goes on from.
    pub(super) async fn list<K: Kind>(
        &self,
        parameters: &ListParams,
    ) -> Result<ObjectList<K>, CoordinationError> {
        let deed = Deed { verb: "list", name: "", writes: false };
        self.bounded::<K, _>(deed, self.api::<K>().list(parameters)).await
    }

    /// Makes it, if it is not there.
    pub(super) async fn create<K: Kind>(&self, object: &K) -> Result<Written<K>, CoordinationError> {
        let name = object.name_any();
        let api = self.api::<K>();
        let parameters = PostParams::default();
        let deed = Deed { verb: "create", name: &name, writes: true };
        self.written(deed, api.create(&parameters, object)).await
    }

    /// Puts it in the place of the one with the same `resourceVersion`.
    pub(super) async fn replace<K: Kind>(&self, object: &K) -> Result<Written<K>, CoordinationError> {
        let name = object.name_any();
        if object.resource_version().is_none() {
            return Err(CoordinationError::Damaged(format!("{name} has no resourceVersion")));
        }
        let api = self.api::<K>();
        let parameters = PostParams::default();
        let deed = Deed { verb: "update", name: &name, writes: true };
        self.written(deed, api.replace(&name, &parameters, object)).await
    }

    /// Deletes it, if it is still as it was read.
    pub(super) async fn delete<K: Kind>(&self, object: &K) -> Result<(), CoordinationError> {
        let name = object.name_any();
        let preconditions = Preconditions { resource_version: object.resource_version(), uid: object.uid() };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let deed = Deed { verb: "delete", name: &name, writes: true };
        let api = self.api::<K>();
        let deleted = async { api.delete(&name, &parameters).await.map(|_| object.clone()) };
        self.written(deed, deleted).await.map(|_| ())
    }

    async fn written<K: Kind>(
        &self,
        deed: Deed<'_>,
        request: impl Future<Output = kube::Result<K>> + Send,
    ) -> Result<Written<K>, CoordinationError> {
        // 409: it is there, or is not as it was read. 404 of an object that was read: it has gone; of one that is to be
        // made: there is no such namespace.
        let request = async {
            match request.await {
                Ok(object) => Ok(Written::Done(object)),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(Written::Lost),
                Err(kube::Error::Api(status)) if status.code == 404 && deed.verb != "create" => {
                    Ok(Written::Lost)
                }
                Err(error) => Err(error),
            }
        };
        self.bounded::<K, _>(deed, request).await
    }

    async fn bounded<K: Kind, T>(
        &self,
        deed: Deed<'_>,
        request: impl Future<Output = kube::Result<T>> + Send,
    ) -> Result<T, CoordinationError> {
        match tokio::time::timeout(self.limit, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.fault::<K>(deed, error).await),
            Err(_) if deed.writes => Err(CoordinationError::Unclear(format!(
                "no answer within {:?} to {}",
                self.limit,
                self.told::<K>(deed)
            ))),
            Err(_) => Err(CoordinationError::Unreachable(format!(
                "no answer within {:?} to {}",
                self.limit,
                self.told::<K>(deed)
            ))),
        }
    }

    /// What went wrong with a watch.
    pub(super) async fn watch_fault<K: Kind>(&self, error: kube::Error) -> CoordinationError {
        self.fault::<K>(Deed { verb: "watch", name: "", writes: false }, error).await
    }

    /// What a failed request means.
    async fn fault<K: Kind>(&self, deed: Deed<'_>, error: kube::Error) -> CoordinationError {
        let told = self.told::<K>(deed);
        let unknown = |text: String| match deed.writes {
            true => CoordinationError::Unclear(text),
            false => CoordinationError::Unreachable(text),
        };
        match error {
            kube::Error::Api(status) => match status.code {
                401 => CoordinationError::Denied(format!("{told}: {}", words(&status))),
                403 => self.forbidden::<K>(deed, &status).await,
                404 => CoordinationError::Denied(format!(
                    "{told}: there is no such namespace: {}",
                    words(&status)
                )),
                413 | 507 => CoordinationError::Full(format!("{told}: {}", words(&status))),
                422 => CoordinationError::Damaged(format!("{told}: {}", words(&status))),
                // It was turned away before anything was done (RFC 6585, section 4).
                429 => CoordinationError::Unreachable(format!("{told}: {}", words(&status))),
                _ => unknown(format!("{told}: {}", words(&status))),
            },
            kube::Error::Service(ref source) if never_sent(source.as_ref()) => {
                CoordinationError::Unreachable(format!("{told}: {}", chain(&error)))
            }
            // Nothing is sent before the credentials are there.
            kube::Error::Auth(_) => CoordinationError::Denied(format!("{told}: {}", chain(&error))),
            error => unknown(format!("{told}: {}", chain(&error))),
        }
    }

    /// A refusal: by what we may do, or by what admits objects, a quota before all. Both have the same code and reason, so
    /// the server is asked whether we may do this: when we may, it was not for who we are.
    async fn forbidden<K: Kind>(&self, deed: Deed<'_>, status: &Status) -> CoordinationError {
        let told = format!("{}: {}", self.told::<K>(deed), words(status));
        if !deed.writes || status.reason != reason::FORBIDDEN {
            return CoordinationError::Denied(told);
        }
        let attributes = ResourceAttributes {
            group: Some(K::group(&()).into_owned()),
            name: Some(deed.name.to_owned()).filter(|_| deed.verb != "create"),
            namespace: Some(self.namespace.clone()),
            resource: Some(K::plural(&()).into_owned()),
            verb: Some(deed.verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let answer = tokio::time::timeout(self.limit, self.review(attributes)).await;
        match answer.is_ok_and(|answer| answer.unwrap_or(false)) {
            true => CoordinationError::Full(told),
            false => CoordinationError::Denied(told),
        }
    }

    /// Whether the server says that we may do this; it is not done.
    pub(super) async fn allows(&self, attributes: ResourceAttributes) -> Result<bool, CoordinationError> {
        let deed = Deed { verb: "review", name: "", writes: false };
        self.bounded::<ConfigMap, _>(deed, self.review(attributes)).await
    }

    async fn review(&self, attributes: ResourceAttributes) -> kube::Result<bool> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let reviewed = api.create(&PostParams::default(), &review).await?;
        Ok(reviewed.status.is_some_and(|status| status.allowed))
    }

    fn told<K: Kind>(&self, deed: Deed<'_>) -> String {
        let name = if deed.name.is_empty() { String::new() } else { format!(" {}", deed.name) };
        format!("{} {}{name} in namespace {}", deed.verb, K::plural(&()), self.namespace)
    }
}

/// Whether no connection was there to send the request over.
fn never_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return error.is_connect();
        }
        next = error.source();
    }
    false
}

/// The server's own words.
fn words(status: &Status) -> String {
    format!("{} {}: {}", status.code, status.reason, status.message)
}

/// An error and its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
