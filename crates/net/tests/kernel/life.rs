//! Slots come and go, and nothing stays.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use sandbar_model::{EgressPolicy, ErrorKind, SlotIndex};
use sandbar_net::{Config, open};

use crate::probe::{Reach, Server, connect, connect_from, resolve_from};
use crate::world::{Instance, WEB, World, until};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_leases_leave_nothing() {
    let (_world, instance) = (World::new().await, Instance::new());
    let networks = instance.open(&[]).await;
    for round in 0..50 {
        let policy = if round % 5 == 0 { EgressPolicy::Nothing } else { EgressPolicy::Internet };
        let lease = networks.lease(policy).await.expect("lease");
        networks.release(lease.slot).await.expect("release");
        networks.release(lease.slot).await.expect("release again");
    }
    networks.close().await;
    instance.check_clean(instance.left().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once_all_get_a_slot_of_their_own() {
    let (_world, instance) = (World::new().await, Instance::new());
    let config = Config { slots_max: 20, ..instance.config() };
    let networks = open(config, Vec::new()).await.expect("open");
    let leasing = (0..20).map(|_| networks.lease(EgressPolicy::Internet));
    let leases = futures::future::try_join_all(leasing).await.expect("twenty leases");
    let mut addresses: Vec<_> = leases.iter().map(|lease| lease.host_address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20);
    let full = networks.lease(EgressPolicy::Internet).await.expect_err("no room for another");
    assert_eq!(full.kind(), ErrorKind::Capacity);

    let releasing = leases.iter().map(|lease| networks.release(lease.slot));
    futures::future::try_join_all(releasing).await.expect("release");
    networks.close().await;
    instance.check_clean(instance.left().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_what_is_in_use_works_on_and_the_rest_is_removed() {
    let (_world, instance) = (World::new().await, Instance::new());
    let networks = instance.open(&[]).await;
    let used = networks.lease(EgressPolicy::Internet).await.expect("lease");
    let lost = networks.lease(EgressPolicy::Internet).await.expect("lease");
    let _server = Server::in_guest(&used, 8080);
    drop(networks);

    let reopened =
        open(Config { slots_ready_min: 0, slots_ready_max: 0, ..instance.config() }, vec![used.slot]);
    let networks = reopened.await.expect("open again");
    let left = instance.left().await;
    assert!(!left.iter().any(|name| name.contains(&format!("-{}", lost.slot.0))), "{left:?}");
    assert_eq!(left.len(), 4, "a link, two namespaces, a table: {left:?}");
    assert!(matches!(connect(SocketAddrV4::new(used.host_address, 8080)), Reach::Open(_)));
    assert!(matches!(connect_from(&used, WEB), Reach::Open(_)));

    let adopted = networks.adopt(used.slot, EgressPolicy::Internet).await.expect("adopt").expect("whole");
    assert_eq!(adopted, used, "with the same addresses");
    assert_eq!(resolve_from(&used), Some(0));
    let twice = networks.adopt(used.slot, EgressPolicy::Internet).await.expect_err("it is leased");
    assert_eq!(twice.kind(), ErrorKind::Conflict);

    networks.close().await;
    assert_eq!(instance.left().await.len(), 4, "closing leaves what is in use");
    assert!(matches!(connect_from(&used, WEB), Reach::Open(_)));

    let networks = instance.open(&[used.slot]).await;
    networks.adopt(used.slot, EgressPolicy::Nothing).await.expect("adopt").expect("whole");
    assert_eq!(connect_from(&used, WEB), Reach::Refused, "the policy of the adoption holds");
    networks.release(used.slot).await.expect("release");
    networks.close().await;
    instance.check_clean(instance.left().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_nothing_can_be_adopted_and_everything_released() {
    let (_world, instance) = (World::new().await, Instance::new());
    let gone = SlotIndex(7);
    // Where /run is on a disk, the files that namespaces were pinned on are still there.
    let file = format!("/run/netns/sb-{}-7-r", instance.id);
    std::fs::write(&file, "").expect("write");
    let networks = instance.open(&[gone, SlotIndex(u16::MAX)]).await;
    for slot in [gone, SlotIndex(u16::MAX)] {
        assert!(networks.adopt(slot, EgressPolicy::Internet).await.expect("adopt").is_none());
        networks.release(slot).await.expect("release");
    }
    assert!(!std::path::Path::new(&file).exists());
    networks.close().await;
    instance.check_clean(instance.left().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_do_not_disturb_each_other() {
    let (_world, first, second) = (World::new().await, Instance::new(), Instance::new());
    let of_first = first.open(&[]).await;
    let of_second = second.open(&[]).await;
    let a = of_first.lease(EgressPolicy::Internet).await.expect("lease");
    let b = of_second.lease(EgressPolicy::Internet).await.expect("lease");
    assert_ne!(a.host_address, b.host_address);

    of_first.release(a.slot).await.expect("release");
    of_first.close().await;
    first.check_clean(first.left().await);
    assert!(matches!(connect_from(&b, WEB), Reach::Open(_)), "forwarding is still on");
    let held = open(second.config(), Vec::new()).await.expect_err("it is open");
    assert_eq!(held.kind(), ErrorKind::Conflict);

    of_second.release(b.slot).await.expect("release");
    of_second.close().await;
    second.check_clean(second.left().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_nobody_waits_for_is_released() {
    let (_world, instance) = (World::new().await, Instance::new());
    let networks = instance.open(&[]).await;
    until("a slot is ready", || networks.counts().ready > 0).await;
    {
        let mut leasing = Box::pin(networks.lease(EgressPolicy::Nothing));
        assert!(futures::poll!(&mut leasing).is_pending(), "changing the policy takes a while");
    }
    until("the slot is gone", || networks.counts().leased == 0 && networks.counts().other == 0).await;
    networks.close().await;
    instance.check_clean(instance.left().await);
}

/// A link that is not running yet swallows the first packet, and its sender tries again after a second.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_packet_of_a_new_slot_arrives() {
    let (_world, instance) = (World::new().await, Instance::new());
    let none_ready = Config { slots_ready_min: 0, slots_ready_max: 0, ..instance.config() };
    let networks = open(none_ready, Vec::new()).await.expect("open");
    for _ in 0..20 {
        let lease = networks.lease(EgressPolicy::Internet).await.expect("lease");
        let started = Instant::now();
        assert_eq!(connect(SocketAddrV4::new(lease.host_address, 9)), Reach::Refused);
        assert!(matches!(connect_from(&lease, WEB), Reach::Open(_)));
        assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
        networks.release(lease.slot).await.expect("release");
    }
    networks.close().await;
    instance.check_clean(instance.left().await);
}
