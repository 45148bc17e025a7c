//! Links, addresses and routes of the namespace a netlink socket was opened in.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, State};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep};

use crate::namespace::Namespace;

/// The kernel takes microseconds to get a link going, or as long as its workers are kept from it.
const RUNNING_DEADLINE: Duration = Duration::from_secs(5);
const RUNNING_POLL: Duration = Duration::from_millis(1);

/// What went wrong with a link, an address or a route.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub(crate) struct LinkError {
    doing: String,
    source: io::Error,
}

/// A netlink socket in one namespace. The socket stays there, wherever the thread goes.
pub(crate) struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
}

/// A link pair to make.
pub(crate) struct Pair<'a> {
    /// Its name here.
    pub(crate) name: &'a str,
    /// The other end's name there.
    pub(crate) peer: &'a str,
    /// Where the other end is.
    pub(crate) peer_netns: &'a Namespace,
    /// Of both ends, in bytes.
    pub(crate) mtu: u32,
}

impl Links {
    /// Opens a socket in the calling thread's namespace. Must be called within a runtime.
    pub(crate) fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| LinkError { doing: "open netlink socket".to_owned(), source })?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Makes a pair of links, one end here and one there, both down.
    pub(crate) async fn add_pair(&self, pair: Pair<'_>) -> Result<(), LinkError> {
        let there =
            LinkUnspec::new_with_name(pair.peer).setns_by_fd(pair.peer_netns.fd()).mtu(pair.mtu).build();
        let pair_message = LinkMessageBuilder::<LinkVeth>::new(pair.name, pair.peer)
            .mtu(pair.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(there)))
            .build();
        run(self.handle.link().add(pair_message).execute(), || format!("add link {}", pair.name)).await
    }

    /// Brings a link up, gives it an address when there is one, and says its index.
    pub(crate) async fn bring_up(
        &self,
        name: &str,
        address: Option<(Ipv4Addr, u8)>,
    ) -> Result<u32, LinkError> {
        let missing =
            || LinkError { doing: format!("find link {name}"), source: io::ErrorKind::NotFound.into() };
        let index = self.index(name).await?.ok_or_else(missing)?;
        if let Some((address, prefix)) = address {
            run(self.handle.address().add(index, address.into(), prefix).execute(), || {
                format!("add address {address}/{prefix} to link {name}")
            })
            .await?;
        }
        let up = LinkUnspec::new_with_index(index).up().build();
        run(self.handle.link().set(up).execute(), || format!("bring link {name} up")).await?;
        Ok(index)
    }

    /// Waits until a link that is up carries packets.
    ///
    /// The kernel gets the first end of a pair going some time after the second one came up, and until then the
    /// link swallows packets; a connection would hang for a second. Asking makes newer kernels (6.8) do it at once.
    pub(crate) async fn wait_running(&self, name: &str) -> Result<(), LinkError> {
        let deadline = Instant::now() + RUNNING_DEADLINE;
        let ask = || async {
            let link = self.handle.link().get().match_name(name.to_owned()).execute().try_next().await?;
            Ok(link.is_some_and(|link| link.attributes.contains(&LinkAttribute::OperState(State::Up))))
        };
        while !run(ask(), || format!("find link {name}")).await? {
            if Instant::now() >= deadline {
                let source = io::ErrorKind::TimedOut.into();
                return Err(LinkError { doing: format!("wait for link {name}"), source });
            }
            sleep(RUNNING_POLL).await;
        }
        Ok(())
    }

    /// Routes one address directly out of a link, from our address `source`.
    pub(crate) async fn add_host_route(
        &self,
        to: Ipv4Addr,
        link: u32,
        source: Ipv4Addr,
    ) -> Result<(), LinkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to, 32)
            .output_interface(link)
            .pref_source(source)
            .scope(RouteScope::Link)
            .build();
        self.add_route(route, || format!("add route to {to}")).await
    }

    /// Routes everything else through a gateway that is reached directly out of a link.
    pub(crate) async fn add_default_route(&self, gateway: Ipv4Addr, link: u32) -> Result<(), LinkError> {
        let route =
            RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(link).onlink().build();
        self.add_route(route, || format!("add default route via {gateway}")).await
    }

    /// Deletes a link and with it the other end of its pair. False when there is none of this name.
    pub(crate) async fn delete(&self, name: &str) -> Result<bool, LinkError> {
        let Some(index) = self.index(name).await? else {
            return Ok(false);
        };
        match self.handle.link().del(index).execute().await.map_err(to_io) {
            // It may go by itself at this moment: its other end's namespace is being cleaned up.
            Err(error) if is_missing(&error) => Ok(false),
            other => other
                .map(|()| true)
                .map_err(|source| LinkError { doing: format!("delete link {name}"), source }),
        }
    }

    /// The names of all links.
    pub(crate) async fn names(&self) -> Result<Vec<String>, LinkError> {
        let list = async {
            let mut links = self.handle.link().get().execute();
            let mut names = Vec::new();
            while let Some(link) = links.try_next().await? {
                names.extend(link.attributes.iter().find_map(name_of));
            }
            Ok(names)
        };
        run(list, || "list links".to_owned()).await
    }

    /// Every address and every destination of a route, except the default route: what a new block must avoid.
    pub(crate) async fn networks_in_use(&self) -> Result<Vec<Ipv4Net>, LinkError> {
        let list = async {
            let mut networks = Vec::new();
            let mut addresses = self.handle.address().get().execute();
            while let Some(address) = addresses.try_next().await? {
                networks.extend(address.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(address)) => Some(Ipv4Net::from(*address)),
                    _ => None,
                }));
            }
            let mut routes =
                self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
            while let Some(route) = routes.try_next().await? {
                networks.extend(destination(&route));
            }
            Ok(networks)
        };
        run(list, || "list addresses and routes".to_owned()).await
    }

    /// The MTU of the link the default route leaves by; `None` without a default route.
    pub(crate) async fn default_route_mtu(&self) -> Result<Option<u32>, LinkError> {
        let find = async {
            let mut best: Option<(u32, u32)> = None;
            let mut routes =
                self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
            while let Some(route) = routes.try_next().await? {
                if route.header.destination_prefix_length == 0
                    && let Some(link) = out_link(&route)
                {
                    let found = (metric(&route), link);
                    best = Some(best.map_or(found, |best| best.min(found)));
                }
            }
            let Some((_, index)) = best else { return Ok(None) };
            let link = self.handle.link().get().match_index(index).execute().try_next().await?;
            Ok(link.and_then(|link| link.attributes.iter().find_map(mtu_of)))
        };
        run(find, || "find the link of the default route".to_owned()).await
    }

    /// Whether there is such a link and it has this address.
    pub(crate) async fn has_address(&self, name: &str, address: Ipv4Addr) -> Result<bool, LinkError> {
        let Some(index) = self.index(name).await? else {
            return Ok(false);
        };
        let list = async {
            let mut addresses = self.handle.address().get().set_link_index_filter(index).execute();
            while let Some(found) = addresses.try_next().await? {
                let local = AddressAttribute::Local(IpAddr::V4(address));
                if found.header.index == index && found.attributes.contains(&local) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        run(list, || format!("list addresses of link {name}")).await
    }

    async fn index(&self, name: &str) -> Result<Option<u32>, LinkError> {
        let found = self.handle.link().get().match_name(name.to_owned()).execute().try_next().await;
        match found.map_err(to_io) {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(source) => Err(LinkError { doing: format!("find link {name}"), source }),
        }
    }

    async fn add_route(&self, route: RouteMessage, doing: impl FnOnce() -> String) -> Result<(), LinkError> {
        run(self.handle.route().add(route).execute(), doing).await
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn run<T>(
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
    doing: impl FnOnce() -> String,
) -> Result<T, LinkError> {
    request.await.map_err(|error| LinkError { doing: doing(), source: to_io(error) })
}

fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENODEV)
}

fn name_of(attribute: &LinkAttribute) -> Option<String> {
    match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    }
}

fn mtu_of(attribute: &LinkAttribute) -> Option<u32> {
    match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    }
}

fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => {
            Ipv4Net::new(*address, route.header.destination_prefix_length).ok()
        }
        _ => None,
    })
}

fn out_link(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn metric(route: &RouteMessage) -> u32 {
    let priority = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    priority.unwrap_or(0)
}
