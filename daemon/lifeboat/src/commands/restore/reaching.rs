//! From which backup, and how far: known before anything is written.
//!
//! **Invariant:** nothing else than what was asked for is restored, unless a person accepted the difference.

use lifeboat_archive::wal::{Base, Reach, ReachError, Target, WalMap, survey};
use lifeboat_archive::{Archive, Manifest};
use lifeboat_core::{Lsn, Moment, Timeline};

use crate::archives::failed;
use crate::failure::{Exit, Failure};

/// What will be reached.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) manifest: Manifest,
    pub(super) timeline: Timeline,
    /// Where the server is told to stop; [`Target::Latest`]: where the log ends.
    pub(super) target: Target,
    pub(super) lsn: Lsn,
    pub(super) received: Option<Moment>,
    pub(super) certain: bool,
    /// What a person has accepted to lose.
    pub(super) lost: Option<String>,
}

impl Way {
    /// What will be reached, for people.
    pub(super) fn says(&self) -> String {
        let end = match self.received {
            Some(received) => format!("{}, received {received}", self.lsn),
            None => self.lsn.to_string(),
        };
        match &self.target {
            Target::Latest => format!("the end of the log, {end}"),
            Target::Time(moment) if self.certain => format!("{moment}"),
            Target::Time(moment) => {
                format!("{moment}, if something was committed then or later; the log ends at {end}")
            }
            Target::Lsn(lsn) => format!("{lsn}"),
            Target::Name(name) => {
                format!("the restore point `{name}`, if it is there; the log ends at {end}")
            }
        }
    }
}

/// The newest backup that leads to the target. `manifests` are newest first, at least one.
pub(super) async fn find(
    archive: &Archive,
    manifests: &[Manifest],
    wanted: &Target,
    timeline: Option<Timeline>,
    accept_loss: bool,
) -> Result<Way, Failure> {
    // Of the newest cluster; of an older one only for a moment that the newest had no backup yet.
    let mut refused: Option<Failure> = None;
    let mut map: Option<WalMap> = None;
    for manifest in manifests {
        if let Target::Time(moment) = wanted
            && manifest.ended > *moment
        {
            continue;
        }
        let system = manifest.point.system;
        if map.as_ref().is_none_or(|map| map.system != system) {
            // What another cluster of the name once was is not what is asked for by a place in the log.
            if map.is_some() && !matches!(wanted, Target::Time(_)) {
                break;
            }
            let surveyed = survey(archive, system).await;
            map = Some(surveyed.map_err(|error| failed("the log in the archive cannot be read", &error))?);
        }
        let Some(map) = &map else { continue };
        let point = &manifest.point;
        let base = Base { timeline: point.timeline, start: point.start, end: manifest.end };
        match map.reach(archive, base, wanted, timeline).await {
            Ok(reach) => return Ok(way(manifest, wanted, reach)),
            Err(ReachError::Trouble(error)) => {
                return Err(failed("the log in the archive cannot be read", &error));
            }
            Err(error @ ReachError::Short { .. }) => {
                return short(manifest, &error, wanted, base.timeline, timeline, accept_loss);
            }
            // An earlier one may lead there.
            Err(ReachError::BeforeBackup { .. }) => {}
            Err(error) => {
                let text = format!("{} cannot be restored from {}", said(wanted), manifest.backup);
                refused.get_or_insert_with(|| Failure::because(Exit::Refused, text, &error));
            }
        }
    }
    Err(refused.unwrap_or_else(|| before_all(manifests, wanted)))
}

fn said(wanted: &Target) -> String {
    match wanted {
        Target::Latest => "the newest moment".to_owned(),
        Target::Time(moment) => moment.to_string(),
        Target::Lsn(lsn) => lsn.to_string(),
        Target::Name(name) => format!("the restore point `{name}`"),
    }
}

fn before_all(manifests: &[Manifest], wanted: &Target) -> Failure {
    let first =
        manifests.last().map(|manifest| format!("which ended {}", manifest.ended)).unwrap_or_default();
    let text = format!("{} is before the first backup, {first}", said(wanted));
    Failure::new(Exit::Refused, text)
        .hint("lifeboat backup list; another archive may have older ones: --archive NAME")
}

fn way(manifest: &Manifest, wanted: &Target, reach: Reach) -> Way {
    let target = match wanted {
        // Nothing begins behind the last byte, and the server would wait for what does.
        Target::Lsn(lsn) if *lsn == reach.lsn => Target::Latest,
        wanted => wanted.clone(),
    };
    let Reach { timeline, lsn, received, certain } = reach;
    Way { manifest: manifest.clone(), timeline, target, lsn, received, certain, lost: None }
}

/// The log ends too early.
fn short(
    manifest: &Manifest,
    error: &ReachError,
    wanted: &Target,
    own: Timeline,
    timeline: Option<Timeline>,
    accept_loss: bool,
) -> Result<Way, Failure> {
    let ReachError::Short { stop, gap, .. } = error else {
        return Err(Failure::because(Exit::Failed, "the log in the archive cannot be read", error));
    };
    let missing = match wanted {
        Target::Time(moment) => match stop.received {
            Some(received) => format!("{} lost", lifeboat_core::time::length(moment.since(received))),
            None => "how much would be lost is not known".to_owned(),
        },
        Target::Lsn(lsn) => format!("{} bytes of log lost", lsn.ahead_of(stop.lsn)),
        Target::Latest | Target::Name(_) => match gap {
            Some(gap) => format!("at least {} bytes of log lost", gap.to.ahead_of(gap.from)),
            None => "how much would be lost is not known".to_owned(),
        },
    };
    let lost = format!("stopping at {stop}: {missing}");
    if !accept_loss {
        let text = format!("{} cannot be reached", said(wanted));
        let causes = gap.iter().map(ToString::to_string).collect();
        let failure = Failure { causes, ..Failure::new(Exit::Refused, format!("{text}: {lost}")) };
        return Err(failure.hint("--accept-loss goes as far as there is log"));
    }
    Ok(Way {
        manifest: manifest.clone(),
        timeline: timeline.or(gap.map(|gap| gap.timeline)).unwrap_or(own),
        target: Target::Latest,
        lsn: stop.lsn,
        received: stop.received,
        certain: true,
        lost: Some(lost),
    })
}
