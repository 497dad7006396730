//! The commands that wait in the writer's queue, and their outcomes.

use crate::store::sqlite::append::DigestedBatch;
use crate::store::{Appended, Closed, Resolver, StoreError, TokenUse};
use sorteo_protocol::{AgencyId, DrawId};

/// Pages that a batch writes besides its bets: the ends of four b-trees.
const BATCH_PAGES: u64 = 4;
/// Bets that fill a page of 4 KiB.
const BETS_PER_PAGE: u64 = 50;

/// A write that was submitted, with the resolver of its ticket.
#[derive(Debug)]
pub(super) enum Command {
    Append(Vec<DigestedBatch>, Resolver<Appended>),
    Close { agency: AgencyId, bets: Option<u64>, draw: Option<DrawId>, resolver: Resolver<Closed> },
    TokenUses(Vec<TokenUse>, Resolver<()>),
    Probe(Resolver<()>),
}

/// The outcome of one command, once its group is committed.
pub(super) enum Outcome {
    Appended(Appended),
    Closed(Closed),
    Done,
}

impl Command {
    /// Returns how many pages the command writes, roughly and at most.
    pub(super) fn pages(&self) -> u64 {
        match self {
            Self::Append(batches, _) => {
                batches.iter().map(|one| BATCH_PAGES + one.batch.bets.len() as u64 / BETS_PER_PAGE).sum()
            }
            // Each token may be on a page of its own.
            Self::TokenUses(uses, _) => uses.len() as u64,
            Self::Close { .. } | Self::Probe(_) => BATCH_PAGES,
        }
    }

    /// Resolves the ticket of a command of which nothing was stored.
    pub(super) fn refuse(self, refusal: StoreError) {
        match self {
            Self::Append(_, resolver) => resolver.resolve(Err(refusal)),
            Self::Close { resolver, .. } => resolver.resolve(Err(refusal)),
            Self::TokenUses(_, resolver) | Self::Probe(resolver) => resolver.resolve(Err(refusal)),
        }
    }
}

impl Outcome {
    /// Resolves the ticket of the command that had this outcome.
    pub(super) fn resolve(self, command: Command) {
        match (self, command) {
            (Self::Appended(outcome), Command::Append(_, resolver)) => resolver.resolve(Ok(outcome)),
            (Self::Closed(outcome), Command::Close { resolver, .. }) => resolver.resolve(Ok(outcome)),
            (Self::Done, Command::TokenUses(_, resolver) | Command::Probe(resolver)) => {
                resolver.resolve(Ok(()));
            }
            _ => unreachable!("outcomes are in the order of their commands"),
        }
    }
}
