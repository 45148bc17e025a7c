//! What a guest reaches and what it does not.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::time::Duration;

use sandbar_model::EgressPolicy;

use crate::probe::{
    Reach, Server, check_refused, connect, connect_from, resolve_by_tcp_from, resolve_from, within,
};
use crate::world::{HOST, Instance, PRIVATE, WEB, World, host_addresses, ip, nft};

/// Codes of DNS answers. Source: RFC 1035 §4.1.1.
const NO_ERROR: Option<u8> = Some(0);
const REFUSED: Option<u8> = Some(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_reaches_the_internet_as_the_host_and_the_host_reaches_every_port_of_it() {
    let (_world, instance) = (World::new().await, Instance::new());
    let networks = instance.open(&[]).await;
    let lease = networks.lease(EgressPolicy::Internet).await.expect("lease");

    assert_eq!(connect_from(&lease, WEB), Reach::Open(HOST.into()), "masqueraded");
    assert_eq!(resolve_from(&lease), NO_ERROR);
    for port in [1, 53, 8080, 49983, 65535] {
        let _server = Server::in_guest(&lease, port);
        let reach = connect(SocketAddrV4::new(lease.host_address, port));
        assert!(matches!(reach, Reach::Open(_)), "port {port}: {reach:?}");
        assert_ne!(reach, Reach::Open(HOST.into()), "no address of the host is shown to a guest");
    }
    assert_eq!(connect(SocketAddrV4::new(lease.host_address, 8081)), Reach::Refused, "nothing listens");

    networks.release(lease.slot).await.expect("release");
    networks.close().await;
    instance.check_clean(instance.left().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_does_not_reach_the_host() {
    let (_world, instance) = (World::new().await, Instance::new());
    let networks = instance.open(&[]).await;
    let lease = networks.lease(EgressPolicy::Internet).await.expect("lease");

    let listener = TcpListener::bind("0.0.0.0:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let _server = Server::tcp(listener);
    for address in host_addresses().into_iter().map(|address| SocketAddrV4::new(address, port)) {
        // Another program's address may have gone meanwhile.
        if matches!(connect(address), Reach::Open(_)) {
            check_refused(&lease, address);
        }
    }
    check_refused(&lease, SocketAddrV4::new(HOST, port));
    check_refused(&lease, SocketAddrV4::new(lease.guest.gateway, port));
    check_refused(&lease, SocketAddrV4::new(lease.host_address, port));

    let udp = UdpSocket::bind("0.0.0.0:0").expect("bind");
    let to = (HOST, udp.local_addr().expect("bound").port());
    within(&lease.guest_netns, move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        socket.connect(to).expect("connect");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("set the timeout");
        socket.send(b"hello").expect("send");
        let refused = socket.recv(&mut [0; 8]).expect_err("no answer");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
    udp.set_nonblocking(true).expect("set non-blocking");
    udp.recv(&mut [0; 8]).expect_err("the refusal came instead of the packet");

    networks.release(lease.slot).await.expect("release");
    networks.close().await;
    instance.check_clean(instance.left().await);
}

/// As container managers publish ports: traffic to the host is turned into traffic through it.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_does_not_reach_what_other_software_maps_to_the_host() {
    struct Published;
    impl Drop for Published {
        fn drop(&mut self) {
            nft("delete table ip sbtest-published");
        }
    }

    let (_world, instance) = (World::new().await, Instance::new());
    let networks = instance.open(&[]).await;
    let lease = networks.lease(EgressPolicy::Internet).await.expect("lease");
    let published = Ipv4Addr::new(203, 0, 113, 200);
    nft(&format!(
        "table ip sbtest-published {{ chain pre {{ type nat hook prerouting priority dstnat; \
         ip daddr {{ {HOST}, {published} }} tcp dport 8088 dnat to {PRIVATE}; }}; }}"
    ));
    let _published = Published;

    check_refused(&lease, SocketAddrV4::new(HOST, 8088));
    check_refused(&lease, SocketAddrV4::new(published, 8088));

    networks.release(lease.slot).await.expect("release");
    networks.close().await;
    instance.check_clean(instance.left().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_does_not_reach_private_addresses_or_another_sandbox() {
    let (_world, instance, other) = (World::new().await, Instance::new(), Instance::new());
    let networks = instance.open(&[]).await;
    let others = other.open(&[]).await;
    let lease = networks.lease(EgressPolicy::Internet).await.expect("lease");
    let neighbour = networks.lease(EgressPolicy::Internet).await.expect("lease");
    let stranger = others.lease(EgressPolicy::Internet).await.expect("lease");

    assert!(matches!(connect(PRIVATE), Reach::Open(_)), "the host reaches it");
    check_refused(&lease, PRIVATE);
    for address in ["169.254.169.254", "192.168.0.1", "172.17.0.1", "100.64.0.1", "127.0.0.2", "198.18.0.1"] {
        check_refused(&lease, SocketAddrV4::new(address.parse().expect("an address"), 80));
    }
    for sandbox in [&neighbour, &stranger] {
        let _server = Server::in_guest(sandbox, 8080);
        let address = SocketAddrV4::new(sandbox.host_address, 8080);
        assert!(matches!(connect(address), Reach::Open(_)));
        check_refused(&lease, address);
    }

    for (networks, lease) in [(&networks, &lease), (&networks, &neighbour), (&others, &stranger)] {
        networks.release(lease.slot).await.expect("release");
    }
    networks.close().await;
    others.close().await;
    instance.check_clean(instance.left().await);
    other.check_clean(other.left().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_has_one_address_and_no_other_counts() {
    let (_world, instance) = (World::new().await, Instance::new());
    let networks = instance.open(&[]).await;
    let lease = networks.lease(EgressPolicy::Internet).await.expect("lease");
    let netns = lease.guest_netns.file_name().expect("a file").to_owned();

    let links = ip(&format!("-n {netns} -o link show"));
    assert_eq!(links.lines().count(), 2, "lo and eth0 only: {links}");
    assert!(ip(&format!("-n {netns} -6 addr show")).is_empty(), "no IPv6");
    assert!(ip(&format!("-6 addr show dev sb{}-{}", instance.id, lease.slot.0)).is_empty(), "no IPv6");

    // The packet would find its way to the internet, and back through the masquerade.
    let spoofed = Ipv4Addr::new(203, 0, 113, 99);
    ip(&format!("-n {netns} addr add {spoofed}/32 dev lo"));
    ip(&format!("-n {netns} route add {}/32 via {} src {spoofed}", WEB.ip(), lease.guest.gateway));
    assert_eq!(connect_from(&lease, WEB), Reach::Silent);

    networks.release(lease.slot).await.expect("release");
    networks.close().await;
    instance.check_clean(instance.left().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_nothing_and_can_be_switched() {
    let (_world, instance) = (World::new().await, Instance::new());
    let networks = instance.open(&[]).await;
    let lease = networks.lease(EgressPolicy::Nothing).await.expect("lease");

    check_refused(&lease, WEB);
    assert_eq!(resolve_from(&lease), REFUSED);
    assert_eq!(resolve_by_tcp_from(&lease), REFUSED);
    let _server = Server::in_guest(&lease, 8080);
    assert!(matches!(connect(SocketAddrV4::new(lease.host_address, 8080)), Reach::Open(_)));

    networks.set_policy(&lease, EgressPolicy::Internet).await.expect("open");
    assert!(matches!(connect_from(&lease, WEB), Reach::Open(_)));
    assert_eq!(resolve_from(&lease), NO_ERROR);
    networks.set_policy(&lease, EgressPolicy::Nothing).await.expect("shut");
    check_refused(&lease, WEB);
    assert_eq!(resolve_from(&lease), REFUSED);

    networks.release(lease.slot).await.expect("release");
    networks.set_policy(&lease, EgressPolicy::Internet).await.expect_err("it is not leased any more");
    networks.close().await;
    instance.check_clean(instance.left().await);
}
