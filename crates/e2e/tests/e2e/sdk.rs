//! The official SDKs, unmodified, in every version of the matrix and over both transports.

use std::time::Duration;

use libtest_mimic::Trial;
use sandbar_e2e::{Client, Environment, Generation, Transport, VERSIONS, Version};

use crate::suite::shared;

/// For all checks of one version together.
const RUN_WITHIN: Duration = Duration::from_secs(300);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in VERSIONS {
        for (transport, name) in [(Transport::Tls, "tls"), (Transport::Http, "http")] {
            if version.speaks(transport) {
                trials.push(trial(*version, transport, &format!("sdk::{version}::{name}")));
            }
        }
    }
    trials
}

fn trial(version: Version, transport: Transport, name: &str) -> Trial {
    shared(name, async move |server| {
        let environment = Environment::of(&version)?;
        let run = match (version.client, version.generation) {
            (Client::JavaScript, Generation::Legacy) => environment.node("legacy.mjs")?,
            (Client::JavaScript, _) => environment.node("scenario.mjs")?,
            (_, Generation::Legacy) => environment.python("legacy.py")?,
            (Client::Python, _) => environment.python("scenario.py")?.arg("sync"),
            (Client::AsyncPython, _) => environment.python("scenario.py")?.arg("async"),
        };
        run.against(server, transport).checks(&version.checks(transport), RUN_WITHIN)
    })
}
