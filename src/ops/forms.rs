//! Which forms for a token are taken. Where there are too many at once, the newest displaces
//! one of the address that has most: so nobody who sends slowly keeps another address from
//! signing in, nor, behind one proxy, a form that comes quickly.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::rate_limit::Network;

/// Sign-ins in progress at once: their forms may come slowly.
pub(super) const SIGN_INS_MAX: usize = 16;

/// The sign-ins in progress. See the module.
#[derive(Debug, Default)]
pub(super) struct Forms(Mutex<InProgress>);

/// In the order in which they came.
#[derive(Debug, Default)]
struct InProgress {
    next_turn: u64,
    all: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    turn: u64,
    network: Network,
    /// Whether the whole form has come, so that only its token is to be checked.
    is_whole: bool,
    displaced: Arc<Notify>,
}

/// One sign-in, in progress until it is dropped or displaced.
#[derive(Debug)]
pub(super) struct Form {
    forms: Arc<Forms>,
    turn: u64,
    displaced: Arc<Notify>,
}

impl Forms {
    /// Takes a new form, and displaces another one if there are too many.
    pub(super) fn begin(self: &Arc<Self>, network: Network) -> Form {
        let mut forms = self.lock();
        let (turn, displaced) = (forms.next_turn, Arc::new(Notify::new()));
        forms.next_turn += 1;
        forms.all.push(Entry { turn, network, is_whole: false, displaced: Arc::clone(&displaced) });
        if forms.all.len() > SIGN_INS_MAX {
            forms.displace_one();
        }
        Form { forms: Arc::clone(self), turn, displaced }
    }

    fn lock(&self) -> MutexGuard<'_, InProgress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InProgress {
    /// Displaces, of the address with most forms, the oldest that has not come whole; or the
    /// oldest, where all have. The newest form of all stays.
    fn displace_one(&mut self) {
        let of_same = |one: &Entry| self.all.iter().filter(|other| other.network == one.network).count();
        let older = self.all.iter().enumerate().take(self.all.len() - 1);
        let chosen = older.min_by_key(|(_, entry)| (Reverse(of_same(entry)), entry.is_whole, entry.turn));
        if let Some(index) = chosen.map(|(index, _)| index) {
            self.all.remove(index).displaced.notify_one();
        }
    }
}

impl Form {
    /// Says that the form has come whole.
    pub(super) fn set_whole(&self) {
        let mut forms = self.forms.lock();
        if let Some(entry) = forms.all.iter_mut().find(|entry| entry.turn == self.turn) {
            entry.is_whole = true;
        }
    }

    /// Waits until a newer form has displaced this one.
    pub(super) async fn is_displaced(&self) {
        self.displaced.notified().await;
    }
}

impl Drop for Form {
    fn drop(&mut self) {
        self.forms.lock().all.retain(|entry| entry.turn != self.turn);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn network(last: u8) -> Network {
        IpAddr::from([192, 0, 2, last]).into()
    }

    /// Which of the forms are still in progress.
    fn kept(forms: &Forms) -> Vec<u64> {
        forms.lock().all.iter().map(|entry| entry.turn).collect()
    }

    fn begin<const N: usize>(forms: &Arc<Forms>, of: [u8; N]) -> [Form; N] {
        of.map(|last| forms.begin(network(last)))
    }

    #[test]
    fn the_oldest_of_the_address_with_most_is_displaced_if_it_has_not_come_whole() {
        let forms = Arc::default();
        let held = begin(&forms, [1, 2, 2, 3, 3, 3, 2, 2, 4, 4, 4, 5, 5, 5, 6, 6]);
        held[1].set_whole();
        let more = begin(&forms, [7, 7]);
        assert_eq!(kept(&forms), [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
        drop(more);
        drop(held);
        assert!(kept(&forms).is_empty());
    }

    #[test]
    fn the_newest_stays_whether_the_others_have_come_whole_or_not() {
        let forms = Arc::default();
        let held = begin(&forms, [1; SIGN_INS_MAX]);
        held.iter().for_each(Form::set_whole);
        let _newest = begin(&forms, [1]);
        assert_eq!(kept(&forms), Vec::from_iter(1..=16));
        // Of its own address, where that has most; of the oldest, where all have one.
        let forms = Arc::default();
        let _held: [Form; SIGN_INS_MAX] = begin(&forms, std::array::from_fn(|index| index as u8));
        let _newest = begin(&forms, [99]);
        assert_eq!(kept(&forms), Vec::from_iter(1..=16));
    }
}
