//! A look at each member of etcd, for a person who wants to know before the day it matters.
//!
//! **Invariant:** nothing is written, and each member is asked by itself: what one says of another is not believed.

use etcd_client::{AlarmAction, AlarmType};
use futures::future::join_all;
use lifeboat_engine::ports::CoordinationError;

use super::EtcdOptions;
use super::keys::Keys;
use super::members::Members;
use super::trouble::Trouble;

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberLook {
    /// Its version: "3.4.30".
    pub version: String,
    /// The cluster it belongs to; the same for all members of one etcd.
    pub cluster: u64,
    /// Whether it is only learning, and does not count for a majority yet.
    pub learner: bool,
    /// The bytes of its database.
    pub size: i64,
    /// Whether an alarm says that space is used up: it takes no writes.
    pub full: bool,
    /// Whether an alarm says that its data is corrupt.
    pub corrupt: bool,
}

/// Looks at each member, by its endpoint: whether it is reached, believes us, and lets us read what agents share.
pub async fn survey(options: &EtcdOptions) -> Vec<(String, Result<MemberLook, CoordinationError>)> {
    let looks = options.endpoints.iter().map(|endpoint| async move {
        let alone = EtcdOptions { endpoints: vec![endpoint.clone()], ..options.clone() };
        (endpoint.clone(), look(alone).await.map_err(Trouble::of_read))
    });
    join_all(looks).await
}

async fn look(options: EtcdOptions) -> Result<MemberLook, Trouble> {
    let newest = Keys::new(&options.name).newest();
    let member = Members::new(options);
    let status = member.ask(|mut client| async move { client.status().await }).await?.what;
    // By a majority, and as the user we are.
    member.get(newest, etcd_client::GetOptions::new().with_keys_only()).await?;
    // Who may not ask for alarms is told of them by the first write that is refused.
    let alarms =
        |kind| member.ask(move |mut client| async move { client.alarm(AlarmAction::Get, kind, None).await });
    let (full, corrupt) = (alarms(AlarmType::Nospace).await, alarms(AlarmType::Corrupt).await);
    let raised = |told: Result<super::members::Told<etcd_client::AlarmResponse>, Trouble>,
                  kind: AlarmType| {
        told.is_ok_and(|told| told.what.alarms().iter().any(|alarm| alarm.alarm() == kind))
    };
    Ok(MemberLook {
        version: status.version().to_owned(),
        cluster: status.header().map(etcd_client::ResponseHeader::cluster_id).unwrap_or_default(),
        learner: status.is_learner(),
        size: status.db_size(),
        full: raised(full, AlarmType::Nospace),
        corrupt: raised(corrupt, AlarmType::Corrupt),
    })
}
