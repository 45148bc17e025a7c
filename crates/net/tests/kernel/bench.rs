//! How long things take; printed with `--nocapture`. Bounds are far off, against the wrong order of magnitude.

use std::time::{Duration, Instant};

use sandbar_model::EgressPolicy;
use sandbar_net::{Config, open};

use crate::world::{Instance, World, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_things_take() {
    const ROUNDS: usize = 20;
    let (_world, instance) = (World::new().await, Instance::new());
    let none_ready = Config { slots_ready_min: 0, slots_ready_max: 0, slots_max: 100, ..instance.config() };
    let networks = open(none_ready, Vec::new()).await.expect("open");
    let (mut build, mut shut, mut reopen, mut release) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let lease = networks.lease(EgressPolicy::Internet).await.expect("lease");
        build.push(started.elapsed());
        let started = Instant::now();
        networks.set_policy(&lease, EgressPolicy::Nothing).await.expect("set policy");
        shut.push(started.elapsed());
        let started = Instant::now();
        networks.set_policy(&lease, EgressPolicy::Internet).await.expect("set policy");
        reopen.push(started.elapsed());
        let started = Instant::now();
        networks.release(lease.slot).await.expect("release");
        release.push(started.elapsed());
    }
    networks.close().await;

    let ready = u16::try_from(ROUNDS).expect("few");
    let warm = Config { slots_ready_min: 0, slots_ready_max: ready, slots_max: 100, ..instance.config() };
    let networks = open(warm, Vec::new()).await.expect("open");
    until("all are ready", || networks.counts().ready == ROUNDS).await;
    let mut claim = Vec::new();
    let mut leases = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        leases.push(networks.lease(EgressPolicy::Internet).await.expect("lease"));
        claim.push(started.elapsed());
    }
    for lease in leases {
        networks.release(lease.slot).await.expect("release");
    }
    networks.close().await;
    instance.check_clean(instance.left().await);

    report("build and lease", build, Duration::from_secs(1));
    report("lease a ready slot", claim, Duration::from_millis(10));
    report("to nothing", shut, Duration::from_secs(1));
    report("to internet", reopen, Duration::from_secs(1));
    report("release", release, Duration::from_secs(2));
}

#[track_caller]
fn report(what: &str, mut times: Vec<Duration>, bound: Duration) {
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("{what}: median {median:?}, worst {worst:?}\n").as_bytes(),
    );
    assert!(median < bound, "{what}: {median:?}");
}
