//! The three sites of a lab: powered, frozen, cut off, each as a whole or one part of it.
//!
//! **Invariant:** a part is found by the folder its processes work in, and so is a site: what they started is
//! theirs.

use std::path::PathBuf;

use super::{Lab, LabError};
use crate::canary::now_ms;
use crate::etcd::Etcd;
use crate::network::WITNESSES;
use crate::process::{self, Signal};
use crate::proxy::Fault;
use crate::region::{From, Place, Region, Site, To};
use crate::relay::Manner;

/// A part of a site that can die, hang and come back alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Its agent, with the programs that it runs.
    Agent,
    /// The sentry beside its database.
    Sentry,
    /// Its database: all processes of the server, not the host that starts it.
    Database,
    /// Its member of etcd.
    Etcd,
}

impl Lab {
    /// The folder that the processes of a part work in; there may be none of them.
    #[must_use]
    pub fn part(&self, site: Site, part: Part) -> PathBuf {
        site.folder(self.folder()).join(match part {
            Part::Agent => "agent",
            Part::Sentry => "sentry",
            Part::Database => "data",
            Part::Etcd => "etcd",
        })
    }

    /// The etcd of the sites.
    ///
    /// # Panics
    /// When the lab has no sites: a mistake in a test.
    #[must_use]
    pub fn etcd(&self) -> &Etcd {
        self.etcd.get().unwrap_or_else(|| panic!("the lab has no etcd"))
    }

    pub(super) async fn start_etcd(&self) -> Result<(), LabError> {
        let etcd = Etcd::start(self.folder(), &self.network, &self.nursery).await?;
        // There is one already only when this is called twice.
        let _ = self.etcd.set(etcd);
        Ok(())
    }

    /// Kills a part of a site (kill -9) and returns which processes that were.
    ///
    /// # Errors
    /// When some survive.
    pub fn kill(&self, site: Site, part: Part) -> Result<Vec<i32>, LabError> {
        Ok(process::kill_within(&self.part(site, part))?)
    }

    /// Kills the keeper of a site's sentry (kill -9), and not its switch.
    ///
    /// # Errors
    /// When the signal is refused.
    pub fn kill_keeper(&self, site: Site) -> Result<(), LabError> {
        let keeper = |pid: &i32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            !words.split(|byte| *byte == 0).any(|word| word == b"--switch")
        };
        let all = process::within(&self.part(site, Part::Sentry))?;
        Ok(process::signal(&all.into_iter().filter(keeper).collect::<Vec<_>>(), Signal::KILL)?)
    }

    /// Stops a part of a site (SIGSTOP), as one: no process of it is left running when this returns.
    ///
    /// # Errors
    /// When a signal is refused.
    pub fn suspend(&self, site: Site, part: Part) -> Result<Vec<i32>, LabError> {
        Ok(process::freeze_within(&self.part(site, part))?)
    }

    /// Wakes a part of a site.
    ///
    /// # Errors
    /// When a signal is refused.
    pub fn resume(&self, site: Site, part: Part) -> Result<(), LabError> {
        Ok(process::signal(&process::within(&self.part(site, part))?, Signal::CONT)?)
    }

    /// Takes the power from a site: kill -9 of every process of it, and every path to it refuses. Returns the moment
    /// just before the first kill, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// When processes survive.
    pub fn power_off(&self, site: Site) -> Result<u64, LabError> {
        let at = now_ms();
        process::kill_within(&site.folder(self.folder()))?;
        self.to_site(site, Fault::Refuse);
        Ok(at)
    }

    /// Freezes a site: every process of it is stopped (SIGSTOP) and every path to it is a black hole, as when a machine
    /// hangs. Returns the moment, as [`Lab::power_off`].
    ///
    /// # Errors
    /// When a signal is refused.
    pub fn freeze_site(&self, site: Site) -> Result<u64, LabError> {
        let at = now_ms();
        process::freeze_within(&site.folder(self.folder()))?;
        self.to_site(site, Fault::Blackhole);
        Ok(at)
    }

    /// Wakes a frozen site, with all that it was about to do. Returns the moment just before the first process wakes.
    ///
    /// # Errors
    /// When a signal is refused.
    pub fn thaw_site(&self, site: Site) -> Result<u64, LabError> {
        let at = now_ms();
        self.to_site(site, Fault::None);
        process::signal(&process::within(&site.folder(self.folder()))?, Signal::CONT)?;
        Ok(at)
    }

    /// Gives every path to a site the same fault.
    pub fn to_site(&self, site: Site, fault: Fault) {
        let paths = self.proxies.iter().filter(|((_, to), _)| to.site() == Some(site));
        paths.for_each(|(_, proxy)| proxy.set(fault));
        self.relay_to(site, fault);
    }

    /// Questions for the name server of a site come through, or not.
    fn relay_to(&self, site: Site, fault: Fault) {
        if let Some(relay) = self.relays.get(&site) {
            relay.set(if fault == Fault::None { Manner::Ask } else { Manner::Cut });
        }
    }

    /// Sets what the network does to bytes from one place to another, on open connections too. Clients of the shop are
    /// in no place: they reach every region.
    pub fn rule(&self, from: Place, to: Place, fault: Fault) {
        self.rules.set(from, to, fault);
        self.obey();
    }

    /// The same in both directions.
    pub fn between(&self, one: Place, other: Place, fault: Fault) {
        self.rules.set(one, other, fault);
        self.rules.set(other, one, fault);
        self.obey();
    }

    /// Cuts a site off from the two others and from the world, or heals that. Nothing of it is stopped, and clients
    /// still reach its shop and its database.
    pub fn isolate(&self, site: Site, fault: Fault) {
        let others = site.others().map(Place::Site).chain([Place::World]);
        self.relay_to(site, fault);
        for other in others {
            self.rules.set(Place::Site(site), other, fault);
            self.rules.set(other, Place::Site(site), fault);
        }
        self.obey();
    }

    /// Lifts all rules of the network.
    pub fn heal(&self) {
        self.rules.clear();
        self.obey();
    }

    fn obey(&self) {
        for ((from, to), proxy) in &self.proxies {
            let (there, back) = self.rules.of(from.place(), to.place());
            proxy.obey(there, back);
        }
        if let Some(etcd) = self.etcd.get() {
            etcd.obey(&self.rules);
        }
    }

    /// Gives a site's paths to the witnesses of its connection one fault.
    pub fn witnesses_of(&self, site: Site, fault: Fault) {
        (0..WITNESSES).for_each(|number| self.proxy(From::Site(site), To::Witness(number)).set(fault));
    }

    /// Boots what a site has besides a database: its member of etcd, its agent, and the sentry of a region. What runs
    /// already is left.
    ///
    /// # Errors
    /// When something does not come up.
    pub async fn boot_site(&self, site: Site) -> Result<(), LabError> {
        self.boot_etcd(site).await?;
        if process::within(&self.part(site, Part::Agent))?.is_empty() {
            self.start_agent_at(site).await?;
        }
        match site.region() {
            Some(region)
                if self.sentries() && process::within(&self.part(site, Part::Sentry))?.is_empty() =>
            {
                self.start_sentry(region).await
            }
            _ => Ok(()),
        }
    }

    /// Boots its member of etcd, unless it runs.
    pub(super) async fn boot_etcd(&self, site: Site) -> Result<(), LabError> {
        if process::within(&self.part(site, Part::Etcd))?.is_empty() {
            self.etcd().restart(site, &self.nursery).await?;
        }
        Ok(())
    }

    fn sentries(&self) -> bool {
        self.options.agent.as_ref().is_some_and(|options| options.sentries)
    }

    /// Starts the agents and the sentries of all sites.
    pub(super) async fn start_sites(&self) -> Result<(), LabError> {
        let [east, west, witness] = Site::ALL.map(|site| self.start_agent_at(site));
        tokio::try_join!(east, west, witness)?;
        for region in Region::ALL.into_iter().filter(|_| self.sentries()) {
            self.start_sentry(region).await?;
        }
        Ok(())
    }
}
