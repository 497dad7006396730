//! Taking the addresses to listen on: every address of a name, several names, and one
//! free port for all of them that leave the port open. The operators' HTTP takes its
//! addresses here too.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// Tries to find a port that is free on all addresses. One is mostly enough: the port is
/// free on the first address, and ports are seldom taken on one address alone.
const PORT_TRIES: usize = 16;

/// A name to listen at, with all its addresses: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Vec<SocketAddr>);

/// Sockets that have their addresses.
#[derive(Debug, Default)]
pub struct Bound {
    /// The sockets, which do not listen yet.
    pub sockets: Vec<Socket>,
    /// Addresses of a name that this machine does not have, while it has others of the
    /// name: as of `localhost` where there is no IPv6.
    pub unavailable: Vec<SocketAddr>,
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be listened on")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

impl Endpoint {
    /// Returns the name with these addresses; `None` if there are none.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Option<Self> {
        let mut all: Vec<SocketAddr> = Vec::new();
        for address in addresses.into_iter().map(canonical) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        (!all.is_empty()).then_some(Self(all))
    }

    /// Returns whether only this machine reaches it.
    pub fn is_loopback(&self) -> bool {
        self.beyond_loopback().next().is_none()
    }

    /// Returns its addresses that other machines may reach.
    pub fn beyond_loopback(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.0.iter().copied().filter(|address| !address.ip().is_loopback())
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self(vec![canonical(address)])
    }
}

/// Returns the address, an IPv4 address in its own form. A socket that takes both
/// families shows an IPv4 peer as `::ffff:192.0.2.1`.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Takes every address of every name. Where the port is 0, all get the same free port.
///
/// # Errors
///
/// An address is taken, or this machine has none of a name's addresses.
pub fn bind(endpoints: &[Endpoint]) -> Result<Bound, ListenError> {
    let mut tries = 1;
    loop {
        match bind_once(endpoints) {
            // Another program has the free port on another of the addresses.
            Err(error) if error.source.kind() == io::ErrorKind::AddrInUse && tries < PORT_TRIES => tries += 1,
            result => return result,
        }
    }
}

fn bind_once(endpoints: &[Endpoint]) -> Result<Bound, ListenError> {
    let all = || endpoints.iter().flat_map(|endpoint| &endpoint.0);
    let (mut bound, mut free_port) = (Bound::default(), None);
    let mut taken: Vec<SocketAddr> = Vec::new();
    for Endpoint(addresses) in endpoints {
        let mut lacking = Vec::new();
        for &address in addresses.iter() {
            if taken.contains(&address) {
                continue;
            }
            let with_ipv4 = all().any(|other| other.is_ipv4() && other.port() == address.port());
            match bind_one(address, free_port, with_ipv4) {
                Ok((socket, port)) => {
                    free_port = free_port.or((address.port() == 0).then_some(port));
                    bound.sockets.push(socket);
                    taken.push(address);
                }
                Err(source) if is_unavailable(&source) => lacking.push(ListenError { address, source }),
                Err(source) => return Err(ListenError { address, source }),
            }
        }
        let has_one = addresses.iter().any(|address| taken.contains(address));
        bound.unavailable.extend(lacking.iter().map(|error| error.address));
        if let Some(error) = lacking.pop().filter(|_| !has_one) {
            return Err(error);
        }
    }
    Ok(bound)
}

/// Binds a socket, and returns it with its port. `with_ipv4` says that IPv4 addresses
/// with this port have sockets of their own, which one for both families would exclude.
fn bind_one(address: SocketAddr, free_port: Option<u16>, with_ipv4: bool) -> io::Result<(Socket, u16)> {
    let mut address = address;
    if let Some(port) = free_port.filter(|_| address.port() == 0) {
        address.set_port(port);
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server gets its port back even if old connections linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if matches!(address.ip(), IpAddr::V6(ip) if ip.is_unspecified()) && with_ipv4 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    let port = local_address(&socket)?.port();
    Ok((socket, port))
}

/// Returns whether this machine does not have the address, or not its family.
fn is_unavailable(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// Returns the address of a socket, with its port.
///
/// # Errors
///
/// Where the system does not know it.
pub fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?;
    address.as_socket().ok_or_else(|| io::Error::other("the socket has no internet address"))
}

/// Makes the sockets listen, with so many connections that wait for `accept`.
///
/// # Errors
///
/// Where the system refuses one of them.
pub fn listen(sockets: &[Socket], backlog: i32) -> Result<(), ListenError> {
    sockets.iter().try_for_each(|socket| {
        let fail = |source| {
            let address = local_address(socket).unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
            ListenError { address, source }
        };
        socket.listen(backlog).map_err(fail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(addresses: &[&str]) -> Endpoint {
        Endpoint::new(addresses.iter().map(|address| address.parse().unwrap())).unwrap()
    }

    fn addresses(bound: &Bound) -> Vec<SocketAddr> {
        bound.sockets.iter().map(|socket| local_address(socket).unwrap()).collect()
    }

    #[test]
    fn all_addresses_that_leave_the_port_open_get_the_same_one() {
        let bound = bind(&[endpoint(&["127.0.0.1:0", "127.0.0.2:0"]), endpoint(&["127.0.0.3:0"])]).unwrap();
        listen(&bound.sockets, 1).unwrap();
        let all = addresses(&bound);
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(|address| address.port() == all[0].port() && address.port() != 0), "{all:?}");
    }

    #[test]
    fn an_address_that_is_named_twice_or_in_the_form_of_the_other_family_is_one() {
        let same = [endpoint(&["127.0.0.1:0", "[::ffff:127.0.0.1]:0"]), endpoint(&["127.0.0.1:0"])];
        assert_eq!(addresses(&bind(&same).unwrap()).len(), 1);
    }

    #[test]
    fn an_address_that_the_machine_lacks_is_passed_over_only_beside_others_of_its_name() {
        // Of the block for documentation.
        let lacking = "192.0.2.1:0";
        let bound = bind(&[endpoint(&[lacking, "127.0.0.1:0"])]).unwrap();
        assert_eq!((bound.sockets.len(), bound.unavailable), (1, vec![lacking.parse().unwrap()]));
        let refused = bind(&[endpoint(&["127.0.0.1:0"]), endpoint(&[lacking])]).unwrap_err();
        assert_eq!(refused.to_string(), "192.0.2.1:0 cannot be listened on");
    }

    #[test]
    fn an_address_that_is_taken_is_an_error_that_names_it() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let refused = bind(&[endpoint(&["127.0.0.2:0"]), address.into()]).unwrap_err();
        assert_eq!((refused.address, refused.source.kind()), (address, io::ErrorKind::AddrInUse));
    }

    #[test]
    fn both_families_can_have_all_their_addresses_with_one_port() {
        let both = [endpoint(&["0.0.0.0:0"]), endpoint(&["[::]:0"])];
        match bind(&both) {
            Ok(bound) => listen(&bound.sockets, 1).unwrap(),
            Err(error) => assert!(is_unavailable(&error.source), "{error:?}"),
        }
    }
}
