//! How much one agency, and one address, may ask of the server.
//!
//! An agency counts only where it has proved who it is; otherwise its name would be a way to
//! use up another's quota.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::logging::limits::Peer;
use crate::rate_limit::{ConcurrencyLimit, Network, Permit, RateLimit};
use sorteo_protocol::{AgencyId, DrawId};

/// The limits of each agency and of each address; `None`: there is no such limit. The store
/// limits the bets of an agency, and the server the connections of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Connections of an agency at a time.
    pub agency_connections_max: Option<u32>,
    /// Requests of an agency in any second.
    pub agency_requests_max: Option<NonZeroU32>,
    /// Requests of an address in any second.
    pub address_requests_max: Option<NonZeroU32>,
    /// Bets of an address in a draw.
    pub address_bets_max: Option<u64>,
}

/// What counts towards the limits. See the module.
#[derive(Debug)]
pub(super) struct Quotas {
    agency_connections: ConcurrencyLimit<AgencyId>,
    agency_requests: Option<RateLimit<AgencyId>>,
    address_requests: Option<RateLimit<Network>>,
    address_bets_max: Option<u64>,
    address_bets: Arc<Mutex<AddressBets>>,
}

/// Bets that this process stored, or is about to, in the newest draw, by address.
#[derive(Debug, Default)]
struct AddressBets {
    draw: Option<DrawId>,
    stored: HashMap<Network, u64>,
}

impl Quotas {
    pub(super) fn new(limits: QuotaLimits) -> Self {
        Self {
            agency_connections: ConcurrencyLimit::new(limits.agency_connections_max),
            agency_requests: limits.agency_requests_max.map(RateLimit::per_second),
            address_requests: limits.address_requests_max.map(RateLimit::per_second),
            address_bets_max: limits.address_bets_max,
            address_bets: Arc::default(),
        }
    }

    /// Takes a permit for one more connection of an agency; `None` if it has as many as it may.
    pub(super) fn take_connection(&self, agency: AgencyId) -> Option<Permit<AgencyId>> {
        self.agency_connections.take(agency)
    }

    /// Returns whether a peer may send one more request now, and counts it.
    pub(super) fn allows_request(&self, agency: Option<AgencyId>, peer: &Peer) -> bool {
        let of_agency = agency.zip(self.agency_requests.as_ref());
        of_agency.is_none_or(|(agency, limit)| limit.allows(&agency))
            && self.address_requests.as_ref().is_none_or(|limit| limit.allows(&peer.ip.into()))
    }

    /// Returns whether the bets of an address have a limit, and need to be counted.
    pub(super) fn counts_bets(&self) -> bool {
        self.address_bets_max.is_some()
    }

    /// Counts so many bets more of an address in the newest draw; `None` if it may not have
    /// them.
    pub(super) fn reserve_bets(&self, bets: u64, newest: DrawId, peer: &Peer) -> Option<ReservedBets> {
        let mut counted = lock(&self.address_bets);
        if counted.draw != Some(newest) {
            *counted = AddressBets { draw: Some(newest), stored: HashMap::new() };
        }
        let network = Network::from(peer.ip);
        let stored = counted.stored.entry(network).or_default();
        let bets_max = self.address_bets_max.unwrap_or(u64::MAX);
        *stored = stored.checked_add(bets).filter(|stored| *stored <= bets_max)?;
        let all = Arc::clone(&self.address_bets);
        Some(ReservedBets { bets, draw: newest, network, all })
    }
}

/// Bets that count towards those of an address. Dropped, they count no more.
#[derive(Debug)]
pub(super) struct ReservedBets {
    bets: u64,
    draw: DrawId,
    network: Network,
    all: Arc<Mutex<AddressBets>>,
}

impl ReservedBets {
    /// Lets them count for good, since they are stored.
    pub(super) fn keep(mut self) {
        self.bets = 0;
    }
}

impl Drop for ReservedBets {
    fn drop(&mut self) {
        let mut counted = lock(&self.all);
        if counted.draw == Some(self.draw)
            && let Some(stored) = counted.stored.get_mut(&self.network)
        {
            *stored -= self.bets;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
