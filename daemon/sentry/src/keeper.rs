//! The keeper: renews the write lease, and tells the switch how long it is good.
//!
//! A turn: the switch is asked whether it is there; then, and only then, the lease is renewed; what came of it is told to
//! the switch. The deadline is counted from before the renewal was sent, so that the coordinator, which counts from when it
//! took it in, never ends a lease before the sentry does.
//!
//! **Invariant:** no renewal is sent unless the switch has answered in this very turn.
//! **Invariant:** what is not known for sure extends nothing; the database then goes on until its deadline, and no longer.

use std::ffi::OsString;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::Epoch;
use lifeboat_core::head::{Guarded, Head};
use lifeboat_engine::ports::{CoordinationError, Renewal, Seal, WriteLeases};
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::backstop::Backstop;
use crate::boottime::Boottime;
use crate::failsafe::{Request, ask};
use crate::guard::Deed;
use crate::link::Link;
use crate::settings::Settings;
use crate::status::{Basis, Done, Scribe, Status, remembered};
use crate::switch::lock;
use crate::trouble::Trouble;
use crate::wire::{Footing, Say, mark};

/// Turns in the time of one lease, and the pause below which there are not so many: what has passed since the last good
/// turn when the coordinator falls silent is missing from what a primary survives without it.
const TURNS: u32 = 12;
const CLOSEST: Duration = Duration::from_secs(1);

/// The pauses in the time of one lease while nothing is good, and the longest one: when the coordinator is back, it is to
/// be noticed at once.
const HASTY: u32 = 12;
const HASTE: Duration = Duration::from_millis(500);

/// The part of a lease that one renewal may take.
const RENEWAL: u32 = 4;

/// The part of a lease in which all agents must have answered.
const ASKING: u32 = 6;

/// Deeds that the status shows.
const SHOWN: usize = 20;

/// What a keeper is made of.
pub struct Sentry {
    /// What it knows.
    pub settings: Settings,
    /// Where the lease is.
    pub leases: Arc<dyn WriteLeases>,
    /// Its seal, and the agents' keys.
    pub seal: Arc<dyn Seal>,
    /// The program, with its arguments, that runs [`crate::switch::run`] with the same settings.
    pub switch: Vec<OsString>,
}

/// What the writes of the database stand on.
#[derive(Clone, Debug)]
struct Ground {
    footing: Footing,
    deadline: Boottime,
    sent: Boottime,
}

/// What came of a turn.
enum Turned {
    /// The writes stand on this from now on, for that long from when it was sent.
    Good(Basis, Duration, Boottime),
    /// They do not, for this reason, which `final_word` says is the coordinator's own.
    Not { why: String, final_word: bool },
}

struct Keeper {
    sentry: Sentry,
    link: Link,
    backstop: Backstop,
    scribe: Scribe,
    ground: Option<Ground>,
    /// The newest epoch that a lease was held under here.
    newest: Option<Epoch>,
    role: Guarded,
    /// Whether the last turn was a good one.
    renewed: bool,
    /// Since when it takes writes that stand on nothing.
    bare_since: Option<Boottime>,
    /// Whether it was a standby until then.
    promoted: bool,
    condition: String,
    deeds: Vec<Done>,
    _lock: File,
}

/// Keeps the lease until `stop`; the switch stays, and acts at its deadline unless another keeper comes in time.
///
/// # Errors
/// It could not take up its post.
pub async fn run(sentry: Sentry, stop: CancellationToken) -> Result<(), Trouble> {
    let mut keeper = Keeper::start(sentry)?;
    let length = keeper.sentry.settings.length;
    let (calm, hasty) = ((length / TURNS).max(CLOSEST.min(length / 6)), HASTE.min(length / HASTY));
    let mut told = false;
    loop {
        let turn = Box::pin(keeper.turn());
        tokio::select! { biased; () = stop.cancelled() => break, () = turn => {} }
        keeper.show();
        // Nobody may be listening, which is no failure.
        let _ = sd_notify::notify(&[if told { NotifyState::Watchdog } else { NotifyState::Ready }]);
        told = true;
        let every = if keeper.renewed { calm } else { hasty };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = keeper.backstop.changed() => {}
            () = tokio::time::sleep(every) => {}
        }
    }
    let left_ms = keeper.left().map(|left| left.as_millis());
    tracing::info!(left_ms, "the keeper goes; the switch stays, and stops a primary when its time is over");
    Ok(())
}

impl Keeper {
    fn start(sentry: Sentry) -> Result<Self, Trouble> {
        let settings = &sentry.settings;
        let state = &settings.state;
        let at_state = |error| Trouble::at(state, error);
        std::fs::create_dir_all(state).map_err(at_state)?;
        let lock = lock(state, "keeper.lock").map_err(at_state)?;
        let lock = lock.ok_or_else(|| Trouble::Taken(state.clone()))?;
        let mark = mark(&settings.data, &settings.stop);
        let link = Link::new(state.clone(), sentry.switch.clone(), mark, settings.length);
        let backstop = Backstop::start(&settings.orders()).map_err(|e| Trouble::at(&settings.data, e))?;
        let scribe = Scribe::start(state.clone()).map_err(at_state)?;
        let (newest, role) = (remembered(state), backstop.seen().role);
        Ok(Self {
            sentry,
            link,
            backstop,
            scribe,
            ground: None,
            newest,
            role,
            renewed: true,
            bare_since: None,
            promoted: false,
            condition: String::new(),
            deeds: Vec::new(),
            _lock: lock,
        })
    }

    async fn turn(&mut self) {
        self.renewed = false;
        if let Err(why) = self.attend_switch().await {
            self.hear_backstop();
            self.conclude(format!("the switch does not answer, and nothing is renewed: {why}"));
            return;
        }
        self.hear_backstop();
        let sent = Boottime::now();
        let turned = match self.renew().await {
            Ok(renewal) => self.weigh(renewal, sent),
            Err(error) => self.weigh_trouble(error).await,
        };
        match turned {
            Turned::Good(basis, length, sent) => self.stand_on(Footing { basis, length }, sent).await,
            Turned::Not { why, final_word } => self.fall_back(why, final_word).await,
        }
    }

    /// The switch answers, and knows what we know.
    async fn attend_switch(&mut self) -> Result<(), String> {
        let reached = self.link.ensure().await;
        // Also when it could not be replaced: what it knew binds us.
        self.take_over();
        let reached = reached?;
        self.note("switch", reached.answer.deeds);
        if let Some(Ground { deadline, sent, footing }) = self.live().filter(|_| reached.fresh).cloned() {
            let answer = self.link.say(Say::Until { deadline, sent, footing }).await?;
            self.note("switch", answer.deeds);
        }
        Ok(())
    }

    /// Another keeper was here before: what it stood on is ours until its deadline.
    fn take_over(&mut self) {
        let Some((deadline, footing)) = self.link.standing().filter(|_| self.ground.is_none()) else {
            return;
        };
        let (deadline, footing, sent) = (*deadline, footing.clone(), Boottime::now());
        if deadline <= sent {
            return;
        }
        self.backstop.until(deadline, sent);
        tracing::info!(left_ms = deadline.since(sent).as_millis(), basis = ?footing.basis, "taken over from a keeper before");
        self.ground = Some(Ground { footing, deadline, sent });
    }

    async fn renew(&self) -> Result<Renewal, CoordinationError> {
        let settings = &self.sentry.settings;
        let limit = settings.length / RENEWAL;
        let renewing =
            self.sentry.leases.renew(&settings.workload, &settings.region, settings.length, self.role);
        tokio::time::timeout(limit, renewing).await.unwrap_or_else(|_| {
            Err(CoordinationError::Unclear(format!("no answer within {} ms", limit.as_millis())))
        })
    }

    /// Until the coordinator answers; what, and when that renewal was sent.
    async fn renew_again(&self) -> (Renewal, Boottime) {
        loop {
            tokio::time::sleep(HASTE.min(self.sentry.settings.length / HASTY)).await;
            let sent = Boottime::now();
            if let Ok(renewal) = self.renew().await {
                return (renewal, sent);
            }
        }
    }

    fn weigh(&mut self, renewal: Renewal, sent: Boottime) -> Turned {
        let not = |why: String| Turned::Not { why, final_word: true };
        let length = self.sentry.settings.length;
        match renewal {
            Renewal::Held { epoch } => {
                if let Some(newest) = self.newest.filter(|newest| *newest > epoch) {
                    return not(format!(
                        "the coordinator grants a lease of epoch {epoch}, and one of epoch {newest} was held here: it was restored from an old backup"
                    ));
                }
                if self.newest != Some(epoch) {
                    self.newest = Some(epoch);
                    self.scribe.remember(epoch);
                }
                Turned::Good(Basis::Lease { epoch }, length, sent)
            }
            Renewal::NotOurs(Head { coming: Some(coming), .. }) if coming == self.sentry.settings.region => {
                Turned::Good(Basis::Coming, length, sent)
            }
            Renewal::NotOurs(Head { tended: Some(tended), .. }) if tended == self.sentry.settings.region => {
                Turned::Good(Basis::Tended, length, sent)
            }
            Renewal::NotOurs(Head { epoch, holder, closing, .. }) => {
                let what = if closing { "is being fenced" } else { "may take writes" };
                not(format!("under epoch {epoch}, {holder} {what}"))
            }
            Renewal::Unknown if self.newest.is_none() => Turned::Good(Basis::NoRecord, length, sent),
            Renewal::Unknown => not(format!(
                "the coordinator has no record of the workload, and a lease was held here before: if it was made anew on purpose, remove {}",
                self.sentry.settings.state.join("epoch").display()
            )),
        }
    }

    /// What a renewal that failed means: with the coordinator lost, what the agents say, or itself if it is back before them.
    async fn weigh_trouble(&mut self, error: CoordinationError) -> Turned {
        let not = |why: String| Turned::Not { why, final_word: false };
        let lost = match &error {
            CoordinationError::Unreachable(_)
            | CoordinationError::Unclear(_)
            | CoordinationError::Full(_) => true,
            CoordinationError::Denied(_)
            | CoordinationError::Deposed(_)
            | CoordinationError::Rewound { .. }
            | CoordinationError::Damaged(_) => false,
        };
        let (epoch, granted) = match self.live().map(|ground| &ground.footing) {
            Some(Footing { basis: Basis::Lease { epoch } | Basis::Failsafe { epoch }, length }) if lost => {
                (*epoch, *length)
            }
            _ => return not(error.to_string()),
        };
        let settings = &self.sentry.settings;
        // No more than the coordinator knows of: it is what an agent waits for that was started again since.
        let length = settings.length.min(granted);
        let request = Request {
            by: settings.name(),
            workload: settings.workload.clone(),
            region: settings.region.clone(),
            epoch,
            length,
        };
        let sent = Boottime::now();
        let answered = tokio::select! {
            biased;
            answered = ask(&settings.agents, &self.sentry.seal, &request, settings.length / ASKING) => Ok(answered),
            renewed = self.renew_again() => Err(renewed),
        };
        let answered = match answered {
            Ok(answered) => answered,
            Err((renewal, sent)) => return self.weigh(renewal, sent),
        };
        match answered {
            Ok(()) => Turned::Good(Basis::Failsafe { epoch }, length, sent),
            Err(refused) if refused.is_empty() => {
                not(format!("{error}; no agents are configured to be asked"))
            }
            Err(refused) => {
                let said: Vec<_> = refused.iter().map(|(agent, why)| format!("{agent}: {why}")).collect();
                not(format!("{error}; not every agent grants more time: {}", said.join("; ")))
            }
        }
    }

    async fn stand_on(&mut self, footing: Footing, sent: Boottime) {
        let deadline = sent.plus(footing.length.saturating_sub(self.sentry.settings.margin));
        // The switch first: it is the one that counts.
        let said = self.link.say(Say::Until { deadline, sent, footing: footing.clone() }).await;
        match said {
            Ok(answer) if answer.deadline == Some(deadline) => {
                self.note("switch", answer.deeds);
                self.backstop.until(deadline, sent);
                let condition = match &footing.basis {
                    Basis::Lease { epoch } => format!("the lease is held under epoch {epoch}"),
                    Basis::Failsafe { epoch } => {
                        format!("the coordinator is lost, and all agents grant more time under epoch {epoch}")
                    }
                    Basis::Coming => "this region is becoming the primary one".to_owned(),
                    Basis::Tended => "a run has closed this database, and sees to it".to_owned(),
                    Basis::NoRecord => {
                        "there is no record of the workload yet: nothing is guarded".to_owned()
                    }
                };
                self.ground = Some(Ground { footing, deadline, sent });
                self.renewed = true;
                (self.bare_since, self.promoted) = (None, false);
                self.conclude(condition);
            }
            Ok(answer) => {
                self.note("switch", answer.deeds);
                self.conclude(
                    "the renewal was sent before everything stood still: it is sent again".to_owned(),
                );
            }
            Err(why) => self.conclude(format!("the switch did not take the new deadline: {why}")),
        }
    }

    /// Nothing new to stand on: until the deadline on what there was; without that, no longer than the grace.
    async fn fall_back(&mut self, why: String, final_word: bool) {
        if let Some(left) = self.left() {
            self.conclude(format!(
                "not renewed, {why}; a primary goes on for {} ms at most",
                left.as_millis()
            ));
            return;
        }
        self.ground = None;
        if self.role != Guarded::Writing {
            self.conclude(format!("no lease: {why}"));
            return;
        }
        let settings = &self.sentry.settings;
        let grace = match final_word {
            // Another region may take writes: this one may not for a moment.
            true => Duration::ZERO,
            // One that was promoted a moment ago may have been, with the coordinator lost since: a lease's time to find out.
            false if self.promoted => settings.length.max(self.grace()),
            false => self.grace(),
        };
        let now = Boottime::now();
        let since = *self.bare_since.get_or_insert(now);
        if now.since(since) < grace {
            self.conclude(format!("no lease: {why}; the grace is not over"));
            return;
        }
        let order = format!("a primary without a write lease: {why}");
        self.backstop.order(order.clone());
        match self.link.say(Say::Stop { why: order.clone() }).await {
            Ok(answer) => self.note("switch", answer.deeds),
            Err(trouble) => tracing::error!(trouble, "the switch did not take the order to stop"),
        }
        self.conclude(format!("{order}; it is stopped"));
    }

    /// Where a lease was held before it may have run out while nobody was here, and be taken for a fence.
    fn grace(&self) -> Duration {
        self.newest.map_or(self.sentry.settings.grace, |_| Duration::ZERO)
    }

    fn live(&self) -> Option<&Ground> {
        self.ground.as_ref().filter(|ground| ground.deadline > Boottime::now())
    }

    fn left(&self) -> Option<Duration> {
        self.live().map(|ground| ground.deadline.since(Boottime::now()))
    }

    fn hear_backstop(&mut self) {
        let role = self.backstop.seen().role;
        if role != self.role {
            tracing::info!(before = ?self.role, now = ?role, "the database does something else");
            self.promoted = self.role == Guarded::Following && role == Guarded::Writing;
            self.role = role;
        }
        if role != Guarded::Writing {
            self.bare_since = None;
        }
        let deeds = self.backstop.deeds();
        self.note("keeper", deeds);
    }

    fn note(&mut self, by: &'static str, deeds: Vec<Deed>) {
        for deed in deeds {
            match &deed {
                Deed::Begun { cause } => tracing::error!(by, cause, "the database is stopped"),
                Deed::Stopped { cause, took_ms, trouble } => {
                    tracing::error!(by, cause, took_ms, trouble, "no process of the database is left");
                }
                Deed::Slept { ms } => tracing::warn!(by, ms, "the machine has slept"),
                Deed::Froze => tracing::warn!(by, "everything stood still: only a renewal sent since counts"),
            }
            self.deeds.push(Done { by, deed });
        }
        let over = self.deeds.len().saturating_sub(SHOWN);
        self.deeds.drain(..over);
    }

    /// What came of the turn; logged when it is something else than last time.
    fn conclude(&mut self, condition: String) {
        let kind = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
        if kind(&condition) != kind(&self.condition) {
            match self.live() {
                Some(_) => tracing::info!(condition, "sentry"),
                None if self.role == Guarded::Writing => tracing::error!(condition, "sentry"),
                None => tracing::info!(condition, "sentry"),
            }
        }
        self.condition = condition;
    }

    fn show(&self) {
        let settings = &self.sentry.settings;
        let live = self.live();
        self.scribe.show(Status {
            workload: settings.workload.clone(),
            region: settings.region.clone(),
            database: self.role,
            basis: live.map(|ground| ground.footing.basis.clone()),
            left_ms: self.left().map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            condition: self.condition.clone(),
            keeper: std::process::id(),
            switch: self.link.process(),
            deeds: self.deeds.clone(),
        });
    }
}
