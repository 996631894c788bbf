//! The steps of the operator's own: a command, a request, a statement, a pause, a word to people.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use lifeboat_core::decision::{Notice, Severity};
use lifeboat_core::{DatabaseName, Fault, FaultKind, Output, Reason, RegionName};

use super::Effects;
use crate::ports::Errand;
use crate::program;

impl Effects<'_> {
    pub(crate) async fn run(&self, argv: &[String], env: &BTreeMap<String, String>) -> Result<Output, Fault> {
        let said = program::run(argv, env, self.call.limit).await?;
        Ok(Output::Did { said })
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        url: &str,
        body: Option<&str>,
        expect: &BTreeSet<u16>,
    ) -> Result<Output, Fault> {
        let wired = self.world.messenger.as_deref();
        let messenger =
            wired.ok_or_else(|| Fault::new(FaultKind::Refused, "no sender of requests is wired"))?;
        let errand = Errand { method, url, body, expect };
        let said = messenger.send(&self.call, self.clock.now(), &errand).await?;
        Ok(Output::Did { said })
    }

    pub(crate) async fn query(
        &self,
        region: &RegionName,
        database: &DatabaseName,
        statement: &str,
        expect: Option<&str>,
    ) -> Result<Output, Fault> {
        let answer = self.database(region, database)?.query(&self.call, statement).await;
        let answer = answer.map_err(|fault| fault.in_region(region))?;
        match expect {
            Some(expected) if answer.as_deref() != Some(expected) => {
                let found = answer.as_deref().unwrap_or("no row");
                let detail = format!("{database} answers {found:?}, expected {expected:?}");
                Err(Fault::new(FaultKind::Unclear, detail).in_region(region))
            }
            _ => Ok(Output::Did { said: answer.unwrap_or_default() }),
        }
    }

    pub(crate) async fn wait(&self, length: Duration) -> Result<Output, Fault> {
        self.clock.sleep_until(self.clock.now() + length).await;
        Ok(Output::Did { said: String::new() })
    }

    pub(crate) async fn notify(&self, text: &str) -> Result<Output, Fault> {
        let notice = Notice {
            workload: self.workload.clone(),
            severity: Severity::Info,
            run: Some(self.call.run.clone()),
            reason: Reason::Told { text: text.to_owned() },
            loss: None,
        };
        let told = join_all(self.world.notify.iter().map(|notify| notify.notify(&notice))).await;
        let mut faults = told.into_iter().filter_map(Result::err);
        faults.next().map_or(Ok(Output::Did { said: text.to_owned() }), Err)
    }
}
