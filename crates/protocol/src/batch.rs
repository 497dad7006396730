//! A batch: the bets of one agency, and their position in an upload.

use crate::bets::Bets;
use crate::ids::{AgencyId, DrawId, UploadId};

/// Bets that one agency sends together: stored whole, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The agency that took the bets.
    pub agency: AgencyId,
    /// The bets, in the order they were sent.
    pub bets: Bets,
    /// The batch's position in an upload; a batch without one is stored again each time it
    /// is sent.
    pub position: Option<UploadPosition>,
}

/// The position of a batch in its upload, by which it is stored exactly once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadPosition {
    /// The upload that the batch is part of.
    pub upload: UploadId,
    /// How many rows of the upload came before this batch.
    pub first_row: u64,
    /// The draw that the batch is meant for: it is stored in no other. Without one, that is
    /// the newest draw.
    pub draw: Option<DrawId>,
}
