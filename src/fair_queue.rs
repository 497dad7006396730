//! A queue that is fair by cost: what one flow of items costs does not make the others
//! wait. Weighted fair queueing, as in a router, with equal weights; a connection is a flow.
//!
//! Each item gets the virtual time at which it would be finished if all flows that wait
//! shared the work evenly, and the item that would be finished first is taken first. A
//! flow with cheap items overtakes the expensive ones of others, and nobody waits for
//! ever: virtual time goes on with the work that is taken, and what comes later is
//! finished later. The items of one flow stay in order.

use std::collections::{BTreeMap, HashMap};

/// A flow of items, such as a connection.
pub type FlowId = u64;

/// Parts of a unit of cost, so that a share of a small one is not nothing.
const PARTS: u64 = 1 << 10;

/// The queue. See the module.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// By the virtual time at which each is finished, and then as they came.
    items: BTreeMap<(u64, u64), Item<T>>,
    flows: HashMap<FlowId, Flow>,
    virtual_time: u64,
    pushed: u64,
}

#[derive(Debug)]
struct Item<T> {
    flow: FlowId,
    cost: u64,
    value: T,
}

/// A flow of which items wait.
#[derive(Debug, Default)]
struct Flow {
    waiting: usize,
    finished_at: u64,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), flows: HashMap::new(), virtual_time: 0, pushed: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Adds an item of a flow, which costs so much, in any unit.
    pub fn push(&mut self, flow: FlowId, cost: u64, value: T) {
        let cost = cost.max(1).saturating_mul(PARTS);
        let entry = self.flows.entry(flow).or_default();
        entry.waiting += 1;
        entry.finished_at = entry.finished_at.max(self.virtual_time).saturating_add(cost);
        self.pushed += 1;
        self.items.insert((entry.finished_at, self.pushed), Item { flow, cost, value });
    }

    /// Takes the item that is next.
    pub fn pop(&mut self) -> Option<T> {
        let (_, Item { flow, cost, value }) = self.items.pop_first()?;
        self.virtual_time = self.virtual_time.saturating_add(cost / self.flows.len() as u64);
        let entry = self.flows.get_mut(&flow).expect("a flow with a waiting item is known");
        entry.waiting -= 1;
        if entry.waiting == 0 {
            self.flows.remove(&flow);
        }
        Some(value)
    }

    /// Returns the item that is next.
    pub fn peek(&self) -> Option<&T> {
        self.items.first_key_value().map(|(_, item)| &item.value)
    }

    /// Returns how many items of a flow wait.
    pub fn waiting(&self, flow: FlowId) -> usize {
        self.flows.get(&flow).map_or(0, |flow| flow.waiting)
    }

    /// Returns how many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn items_of_equal_cost_leave_as_they_came_flow_by_flow_in_turn() {
        let mut queue = FairQueue::default();
        for (flow, value) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (2, "b2"), (3, "c1")] {
            queue.push(flow, 5, value);
        }
        assert_eq!((queue.len(), queue.waiting(1), queue.waiting(9)), (6, 3, 0));
        assert_eq!(queue.peek(), Some(&"a1"));
        assert_eq!(drain(&mut queue), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(queue.is_empty() && queue.pop().is_none());
    }

    #[test]
    fn what_is_cheap_does_not_wait_behind_what_others_have_that_is_expensive() {
        let mut queue = FairQueue::default();
        for greedy in 0..64 {
            queue.push(greedy, 4_000, "expensive");
        }
        // Each time the polite one comes, one that is greedy has come again too.
        for round in 0..100 {
            assert_eq!(queue.pop(), Some("expensive"), "{round}");
            queue.push(round % 64, 4_000, "expensive");
            queue.push(64, 6, "cheap");
            assert_eq!(queue.pop(), Some("cheap"), "{round}");
        }
    }

    #[test]
    fn a_flow_that_never_stops_does_not_keep_an_expensive_item_for_ever() {
        let mut queue = FairQueue::default();
        queue.push(0, 1_000, "expensive");
        let mut taken = 0;
        loop {
            for flow in 1..=10 {
                queue.push(flow, 10, "cheap");
            }
            match queue.pop() {
                Some("expensive") => break,
                _ => taken += 1,
            }
            assert!(taken < 2_000, "each of ten had its thousand by now");
        }
        assert!(taken >= 100, "{taken}: it was not its turn yet");
    }

    #[test]
    fn items_of_one_flow_stay_in_order_whatever_they_cost() {
        let mut queue = FairQueue::default();
        queue.push(1, 1_000_000, "first");
        queue.push(1, 0, "second");
        queue.push(1, u64::MAX, "third");
        queue.push(1, 1, "fourth");
        assert_eq!(drain(&mut queue), ["first", "second", "third", "fourth"]);
    }
}
