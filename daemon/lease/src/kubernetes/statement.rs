//! What each vantage says: an object for each, sealed with the vantage's own key.
//!
//! Kubernetes takes nothing away by itself: a testimony that has not changed for as long as a testimony lives, on the
//! watcher's clock, is told to be silent, and one is told only when it is another one than before.
//!
//! **Invariant:** whose testimony it is is said by what was sealed, not by the object's name alone: both must agree.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use lifeboat_core::AgentName;
use lifeboat_core::testimony::Testimony;
use lifeboat_engine::ports::{Change, CoordinationError};

use super::Kubernetes;
use super::access::Written;
use super::objects::{Part, entry};

const TESTIMONY: &str = "testimony";
const VANTAGE: &str = "vantage";
const SEAL: &str = "seal";

/// How often it is written again after somebody has changed the object meanwhile.
const ATTEMPTS: usize = 4;

impl Kubernetes {
    /// Says it, in the place of what this vantage said before.
    pub(super) async fn say(&self, testimony: &Testimony) -> Result<(), CoordinationError> {
        let text = serde_json::to_string(testimony)
            .map_err(|error| CoordinationError::Damaged(format!("a testimony cannot be written: {error}")))?;
        let seal = self.seal.sign(&self.sealed_testimony(&text));
        let name = self.names.testimony(&testimony.vantage);
        let entries = [(TESTIMONY, text.as_str()), (VANTAGE, testimony.vantage.as_str())];
        let data = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut said = self.said.lock().await;
        for _ in 0..ATTEMPTS {
            let known = match said.take().filter(|known| known.metadata.name.as_deref() == Some(&name)) {
                Some(known) => Some(known),
                None => self.access.get::<ConfigMap>(&name).await?,
            };
            let there = known.is_some();
            let mut object = known.unwrap_or_else(|| self.names.object(name.clone(), Part::Testimony));
            object.data = Some(data.clone().into());
            object.binary_data = Some(BTreeMap::from([(SEAL.to_owned(), ByteString(seal.clone()))]));
            let written = match there {
                true => self.access.replace(&object).await?,
                false => self.access.create(&object).await?,
            };
            if let Written::Done(object) = written {
                *said = Some(object);
                return Ok(());
            }
        }
        Err(CoordinationError::Unreachable(format!("{name} is changed all the time")))
    }

    /// What an object of a testimony says.
    pub(super) fn testimony_of(&self, object: &ConfigMap) -> Change {
        let vantage = vantage_of(object);
        let text = entry(object, TESTIMONY).unwrap_or_default();
        let seal = object.binary_data.as_ref().and_then(|all| all.get(SEAL)).map(|seal| seal.0.as_slice());
        let forged = |why: String| Change::Forged { vantage: vantage.clone(), why };
        if object.metadata.name.as_deref() != Some(self.names.testimony(&vantage).as_str()) {
            return forged("the testimony is not in that vantage's place".to_owned());
        }
        if !self.seal.is_of(&vantage, &self.sealed_testimony(text), seal.unwrap_or_default()) {
            return forged("the seal on the testimony is not that vantage's".to_owned());
        }
        match serde_json::from_str::<Testimony>(text) {
            Ok(testimony) if testimony.vantage != vantage => {
                forged(format!("what {} sealed was put in its place", testimony.vantage))
            }
            Ok(testimony) => Change::Testimony(testimony),
            Err(error) => forged(format!("the testimony cannot be understood: {error}")),
        }
    }

    fn sealed_testimony(&self, text: &str) -> Vec<u8> {
        format!("lifeboat testimony\n{}\n{text}", self.options.name).into_bytes()
    }
}

/// Whose testimony the object says it is.
pub(super) fn vantage_of(object: &ConfigMap) -> AgentName {
    AgentName::new(entry(object, VANTAGE).unwrap_or_default())
}
