//! The rules that a document can break, each with a stable name.
//!
//! **Invariant:** a rule's id never changes its meaning: people search for it and silence alerts by it.

use std::fmt;

/// Whether a document that breaks a rule can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but an operator will be sorry one day.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident $id:literal $severity:ident;)*) => {
        /// What can be wrong with a configuration.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[$doc])* $name,)*
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its stable name.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$name => $id,)*
                }
            }

            /// Whether it is an error or a warning to break it.
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)*
                }
            }
        }
    };
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl Rule {
    /// Whether the text at fault may be a secret in the wrong place, so that it must not be repeated.
    pub(crate) const fn hides_value(self) -> bool {
        matches!(self, Self::RelativePath | Self::SecretInAddress | Self::UnknownKey | Self::BadPublicKey)
    }
}

rules! {
    // Floor one: the file.
    /// The file cannot be read at all.
    FileUnreadable "file-unreadable" Error;
    /// It is a folder, a pipe or a device.
    FileNotRegular "file-not-regular" Error;
    /// It is larger than 1 MiB.
    FileTooLarge "file-too-large" Error;
    /// It is not UTF-8.
    FileNotUtf8 "file-not-utf8" Error;

    // Floor two: TOML.
    /// It is not TOML.
    Syntax "syntax" Error;

    // Floor three: keys and values, one at a time.
    /// A key that does not exist.
    UnknownKey "unknown-key" Error;
    /// A key that must be there is not.
    MissingKey "missing-key" Error;
    /// A value of another type.
    WrongType "wrong-type" Error;
    /// A word that is none of those allowed.
    UnknownValue "unknown-value" Error;
    /// A number, a duration or a size out of its range.
    OutOfRange "out-of-range" Error;
    /// A list or text that is too short or too long.
    WrongSize "wrong-size" Error;
    /// The same value twice in a list.
    RepeatedValue "repeated-value" Error;
    /// A text that is no duration.
    BadDuration "bad-duration" Error;
    /// A duration that is no whole number of seconds.
    WholeSeconds "whole-seconds" Error;
    /// A text that cannot be a name.
    BadName "bad-name" Error;
    /// A text that is no address.
    BadAddress "bad-address" Error;
    /// A text that is no size.
    BadSize "bad-size" Error;
    /// A text that is no public key.
    BadPublicKey "bad-public-key" Error;
    /// A text that is no URL that can be asked.
    BadUrl "bad-url" Error;
    /// A user or a password in an address.
    SecretInAddress "secret-in-address" Error;
    /// A text that is no DNS name.
    BadDnsName "bad-dns-name" Error;
    /// A text that is no time of day.
    BadTime "bad-time" Error;
    /// A text that is no schedule.
    BadSchedule "bad-schedule" Error;
    /// A text that is no time zone.
    BadTimeZone "bad-time-zone" Error;
    /// A text that is no place of an archive.
    BadArchivePlace "bad-archive-place" Error;
    /// A text that cannot be a replication slot's name.
    BadSlotName "bad-slot-name" Error;
    /// A DNS name without its final dot.
    NotQualified "not-qualified" Error;
    /// A path that is not absolute, or no path at all.
    RelativePath "relative-path" Error;
    /// A text that is no system identifier.
    BadSystemIdentifier "bad-system-identifier" Error;

    // Floor four: across keys. Names.
    /// Two things of one kind with the same name.
    DuplicateName "duplicate-name" Error;
    /// A region that is not declared.
    UnknownRegion "unknown-region" Error;
    /// A region that is declared, but not one of the workload's.
    ForeignRegion "foreign-region" Error;
    /// The primary is also a standby.
    PrimaryAmongStandbys "primary-among-standbys" Error;
    /// A region that nothing uses.
    UnusedRegion "unused-region" Warning;

    // The agent.
    /// The agent dies with a primary.
    AgentInPrimary "agent-in-primary" Warning;
    /// The agent could never prove that its own network works.
    AutomaticWithoutWitnesses "automatic-without-witnesses" Error;
    /// More witnesses must answer than there are.
    WitnessQuorumTooLarge "witness-quorum-too-large" Error;
    /// Too few witnesses to spare one.
    FewWitnesses "few-witnesses" Warning;
    /// A witness that is part of what is watched.
    WitnessIsWatched "witness-is-watched" Warning;
    /// The control socket's path does not fit.
    SocketPathTooLong "socket-path-too-long" Error;
    /// The journal would be lost at a reboot.
    StateIsTemporary "state-is-temporary" Warning;

    // Several agents, and what they share.
    /// Other agents are listed, and nothing is shared with them.
    AgentsWithoutLease "agents-without-lease" Error;
    /// Something is shared, and nobody is listed.
    AgentsMissing "agents-missing" Error;
    /// This agent is not in the list as it calls itself.
    AgentUnlisted "agent-unlisted" Error;
    /// Two with one address or one key.
    RepeatedAgent "repeated-agent" Error;
    /// A place of its own that reads like a region.
    SiteNearRegion "site-near-region" Warning;
    /// Sentries cannot reach this agent.
    ListenMissing "listen-missing" Error;
    /// The coordinator is lost with one place.
    CoordinatorInOnePlace "coordinator-in-one-place" Warning;
    /// Any authority may vouch for the coordinator.
    CaMissing "ca-missing" Error;
    /// Half of what is needed to log in.
    CredentialIncomplete "credential-incomplete" Error;
    /// The right to decide passes on, or a write lease expires, too late.
    LeaseOverRto "lease-over-rto" Error;

    // Objectives.
    /// Caches alone outlive the objective.
    TtlOverRto "ttl-over-rto" Error;
    /// Caches alone take a large part of the objective.
    TtlSlow "ttl-slow" Warning;
    /// A loss is noticed only when the objective is already missed.
    DetectionOverRto "detection-over-rto" Error;
    /// Noticing and caches together outlive the objective.
    DetectionAndTtlOverRto "detection-and-ttl-over-rto" Error;
    /// Heartbeats are too rare to measure the objective.
    HeartbeatOverRpo "heartbeat-over-rpo" Error;
    /// Nothing may be lost.
    RpoZero "rpo-zero" Warning;
    /// The fence may take longer than the whole objective.
    FenceOverRto "fence-over-rto" Warning;

    // Failover.
    /// More vantages must agree than there are.
    QuorumOverVantages "quorum-over-vantages" Error;
    /// Fewer than a majority must agree.
    QuorumNotMajority "quorum-not-majority" Error;
    /// Those who must agree are lost with the region.
    QuorumInRegion "quorum-in-region" Error;
    /// More must be outside than there are.
    OutsideTooMany "outside-too-many" Error;
    /// Nobody can tell which of two places is cut off.
    FewFailureDomains "few-failure-domains" Error;
    /// One agent alone decides, and nobody has accepted that.
    LoneVantage "lone-vantage" Error;
    /// It is accepted that one agent decides, and there are several.
    LoneVantageUnused "lone-vantage-unused" Warning;
    /// The loss can never be known well enough.
    SampleAgeTooShort "sample-age-too-short" Error;
    /// No sentry holds the lease that should expire.
    FenceExpiryWithoutSentry "fence-expiry-without-sentry" Error;
    /// A sentry with nothing to hold.
    SentryEmbedded "sentry-embedded" Error;
    /// A sentry with nothing to stop.
    SentryWithoutDatabase "sentry-without-database" Error;
    /// No write lease can expire here.
    FenceExpiryEmbedded "fence-expiry-embedded" Error;
    /// A sentry, where the API server keeps no write leases.
    SentryKubernetes "sentry-kubernetes" Error;
    /// No write lease can expire in the API server.
    FenceExpiryKubernetes "fence-expiry-kubernetes" Error;
    /// Evidence is too old before the next look.
    FreshnessTooShort "freshness-too-short" Error;
    /// Nothing stops a second failover right after the first.
    NoCooldown "no-cooldown" Warning;
    /// The budget can never be used up.
    BudgetWithoutEffect "budget-without-effect" Warning;

    /// Two persons must answer in less time than two persons need.
    ApprovalHurried "approval-hurried" Warning;
    /// An old primary that returns can only be kept out, not made a standby.
    RejoinWithoutHost "rejoin-without-host" Warning;

    // Looking.
    /// Nothing can ever make a region lost.
    NoVitalProbe "no-vital-probe" Error;
    /// One slow answer counts as silence.
    SilenceTooShort "silence-too-short" Warning;
    /// A key that only means something with https.
    NeedsHttps "needs-https" Error;
    /// A value that no record of that kind can have.
    BadRecordValue "bad-record-value" Error;
    /// Something of one region is reached by a name that moves.
    FollowsTheSwitch "follows-the-switch" Error;

    // Fences.
    /// Nothing can fence a region that does not answer.
    NoFence "no-fence" Warning;
    /// A placeholder that is not replaced.
    UnknownPlaceholder "unknown-placeholder" Error;
    /// A program that is looked up in PATH.
    ProgramWithoutPath "program-without-path" Warning;

    // Databases.
    /// A region without its member.
    EndpointMissing "endpoint-missing" Error;
    /// Two regions share one server.
    SharedEndpoint "shared-endpoint" Error;
    /// Two workloads would fail over one server.
    ServerInTwoWorkloads "server-in-two-workloads" Error;
    /// One server is listed twice.
    ServerListedTwice "server-listed-twice" Warning;
    /// The port of a connection pooler.
    PooledEndpoint "pooled-endpoint" Warning;
    /// Passwords and data in the clear.
    TlsOff "tls-off" Warning;
    /// Trust anchors that nothing uses.
    CaFileUnused "ca-file-unused" Warning;
    /// A server that cannot commit looks healthy.
    HeartbeatOff "heartbeat-off" Warning;

    // DNS.
    /// Nothing moves the clients.
    NoDnsNames "no-dns-names" Warning;
    /// A name in a zone that nobody serves.
    AuthorityMissing "authority-missing" Error;
    /// A zone without names.
    AuthorityUnused "authority-unused" Warning;
    /// A name outside its zone.
    OutsideZone "outside-zone" Error;
    /// A region without a target.
    TargetMissing "target-missing" Error;
    /// A host name beside other values.
    HostNameNotAlone "host-name-not-alone" Error;
    /// Two regions with the same target.
    SameTarget "same-target" Error;
    /// Other kinds of records in another region.
    TargetKindsDiffer "target-kinds-differ" Warning;
    /// A CNAME where there are other records.
    CnameBesideOthers "cname-beside-others" Error;
    /// A name server that nobody can find.
    NameserverWithoutAddress "nameserver-without-address" Error;
    /// Two sockets on the same address.
    OverlappingListen "overlapping-listen" Error;
    /// A port that resolvers never ask.
    ListenPort "listen-port" Warning;

    // The canary.
    /// Nothing proves that clients were moved.
    NoCanary "no-canary" Warning;
    /// The canary visits something else.
    CanaryElsewhere "canary-elsewhere" Warning;
    /// There is no resolver for the canary.
    CanaryWithoutResolver "canary-without-resolver" Error;

    // Archives and backups.
    /// An archive that is not declared.
    UnknownArchive "unknown-archive" Error;
    /// Two archives in one place.
    RepeatedArchive "repeated-archive" Error;
    /// An archive that nothing is backed up to.
    ArchiveUnused "archive-unused" Warning;
    /// A key of another kind of store.
    StoreKeyUnused "store-key-unused" Warning;
    /// The key beside what it opens.
    KeyInArchive "key-in-archive" Error;
    /// Backups, and nowhere to keep them.
    BackupWithoutArchive "backup-without-archive" Error;
    /// One database, twice to one archive.
    RepeatedBackup "repeated-backup" Error;
    /// A replication slot's name that is too long.
    SlotNameTooLong "slot-name-too-long" Error;
    /// The slot is given up before people are told.
    SlotAlertOverLimit "slot-alert-over-limit" Error;
    /// The log is stored too rarely.
    PieceOverRpo "piece-over-rpo" Error;
    /// Base backups alone are too rare.
    BackupOverRpo "backup-over-rpo" Error;

    // The document against this machine.
    /// A file that is not there or cannot be read.
    FileMissing "file-missing" Error;
    /// A secret that others may read.
    SecretExposed "secret-exposed" Warning;
    /// A secret file without a secret, or with more than one.
    SecretNotOneLine "secret-not-one-line" Error;
    /// A key that is not base64.
    KeyNotBase64 "key-not-base64" Error;
    /// A file that holds no certificate.
    NoCertificate "no-certificate" Error;
    /// A fence that cannot be run.
    FenceNotExecutable "fence-not-executable" Error;
    /// The journal cannot be kept.
    StateNotWritable "state-not-writable" Error;
    /// The journal can be read or changed by others.
    StateExposed "state-exposed" Warning;
    /// The configuration can be changed by others.
    ConfigExposed "config-exposed" Warning;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kebab_case_and_unique() {
        let mut ids: Vec<_> = Rule::ALL.iter().map(|r| r.id()).collect();
        assert!(
            ids.iter()
                .all(|id| id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
        );
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
