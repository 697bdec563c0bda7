//! What a running process takes over from its file without a restart: the allow list.

use std::sync::{Arc, Mutex, PoisonError};

use scale0_broker::{BrokerHandle, Right, Rights};
use serde_json::Value;

use crate::config::{Config, May, Security, Sources};

/// Reads the configuration again, and lets the broker know whom it lets in from now on.
pub(super) struct Reload {
    /// As at the start.
    sources: Sources,
    /// What the process runs by.
    config: Mutex<Config>,
    broker: Option<Arc<BrokerHandle>>,
}

impl Reload {
    pub(super) fn new(sources: Sources, config: Config, broker: Option<Arc<BrokerHandle>>) -> Self {
        Self {
            sources,
            config: Mutex::new(config),
            broker,
        }
    }

    /// Takes over what can be, all of it or nothing; says what came of it.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub(super) fn reload(&self) -> Result<String, String> {
        let read = Config::load(&self.sources).map_err(|wrong| wrong.to_string())?;
        let mut running = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let mut said = match &self.broker {
            Some(broker) if running.security.has_key() => {
                if read.security.allow.is_empty() {
                    return Err(
                        "`allow` in [security] is empty now; to go on without keys takes a restart"
                            .to_owned(),
                    );
                }
                broker.change_rights(rights(&read.security));
                running.security.allow.clone_from(&read.security.allow);
                format!("{} keys may come in\n", read.security.allow.len())
            }
            _ => "no broker with keys is in this process: there was nothing to take over\n"
                .to_owned(),
        };
        let waiting = differences(&running, &read);
        if !waiting.is_empty() {
            said.push_str(&format!(
                "changed, and not taken over before a restart: {}\n",
                waiting.join(", ")
            ));
        }
        Ok(said)
    }
}

/// The sections in which two configurations differ.
fn differences(one: &Config, other: &Config) -> Vec<String> {
    if one == other {
        return Vec::new();
    }
    let sections = |config| match serde_json::to_value(config) {
        Ok(Value::Object(sections)) => sections,
        Ok(_) | Err(_) => serde_json::Map::new(),
    };
    let (one, other) = (sections(one), sections(other));
    let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| one.get(*name) != other.get(*name));
    names.iter().map(|name| format!("[{name}]")).collect()
}

/// The allow list as the broker wants it.
pub(super) fn rights(security: &Security) -> Rights {
    let mut rights = Rights::new();
    for allowed in &security.allow {
        let right = Right {
            name: allowed.name.to_string(),
            asks: allowed.may.contains(&May::Frontend),
            offers: allowed.services.iter().map(ToString::to_string).collect(),
        };
        rights.allow(allowed.public_key.0, right);
    }
    rights
}
