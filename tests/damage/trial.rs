//! One fault: what `check` reports of the files, and what a server does with them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};

use sorteo::store::sqlite::check::check;
use sorteo::store::sqlite::{Event, SqliteStore};
use sorteo::store::{AppendRefusal, Store as _, StoreError};
use sorteo_protocol::{AgencyId, DrawId};

use crate::lottery::{AGENCIES, BETTING, Case, Content, Folder, OPEN_DRAW, Winners, late_batch, options};
use crate::{Damaged, Fault};

/// Content that is in the database only once, so that `check` can only verify its form. It does
/// not change who wins.
const TOLD_ONCE: [&str; 9] = [
    "draws.opened_at",
    "draws.drawn_at",
    "batches.stored_at",
    // Only where the upload is a single batch.
    "batches.upload",
    "done_agencies.done_at",
    "audit.at",
    "audit.action",
    "audit.detail",
    "audit.actor",
];

/// What `check` says.
#[derive(Debug, PartialEq)]
enum Checked {
    Refused(String),
    Found(Vec<String>),
    Fine,
}

/// What a server does that opens the files, takes more bets and completes the draw.
#[derive(Debug)]
enum Served {
    Refused(String),
    Failed(String),
    Winners {
        all: Winners,
        /// Those among them whose bets it took.
        late: Winners,
    },
}

/// How the content compares with what it may be.
#[derive(Debug)]
enum Said {
    Unreadable,
    /// It is that of one of the states, but for these columns.
    State(usize, Vec<String>),
}

/// All that is seen of one fault.
#[derive(Debug)]
pub struct Trial {
    checked: Checked,
    said: Said,
    served: Served,
    /// The winners are those of the state.
    right: bool,
    /// The server refused the files, and left them as they were.
    untouched: bool,
    /// What `check` says after the draw.
    after: Checked,
}

impl Trial {
    pub fn run(case: &Case, fault: &Fault) -> Self {
        let (mut database, mut log) = (case.database.clone(), case.log.clone());
        let damaged = match fault.file {
            Damaged::Database => &mut database,
            Damaged::Log => &mut log,
        };
        damaged[fault.offset..fault.offset + fault.bytes.len()].copy_from_slice(&fault.bytes);
        let folder = Folder::new();
        folder.write(&database, &log);
        let path = folder.database();
        let checked = check_quietly(&path);
        let said = said(&path, case);
        // Not beside what the readers left: as a server finds it.
        folder.write(&database, &log);
        let served = serve(&path);
        let right = match &said {
            Said::State(state, _) => served.is_right(&case.states[*state].winners),
            Said::Unreadable => case.states.iter().any(|state| served.is_right(&state.winners)),
        };
        let untouched = folder.bytes() == (database, log);
        Self { checked, said, served, right, untouched, after: check_quietly(&path) }
    }

    /// What came of it, in a line for the table of all.
    pub fn outcome(&self) -> String {
        let checked = match &self.checked {
            Checked::Refused(_) => "refuses it",
            Checked::Found(_) => "finds it",
            Checked::Fine => "calls it fine",
        };
        let said = match &self.said {
            Said::Unreadable => "unreadable".to_owned(),
            Said::State(0, different) if different.is_empty() => "as it was".to_owned(),
            Said::State(state, different) if different.is_empty() => format!("of {state} commits"),
            Said::State(_, different) if self.checked == Checked::Fine => different.join(" "),
            Said::State(..) => "another".to_owned(),
        };
        let served = match &self.served {
            Served::Refused(_) => "refuses it",
            Served::Failed(_) => "fails",
            Served::Winners { .. } if self.right => "tells the right winners",
            Served::Winners { .. } => "tells wrong winners",
        };
        format!("check {checked:<13} | content {said:<12} | server {served}")
    }

    /// Nobody saw a fault, and all is right.
    pub fn is_fine(&self) -> bool {
        self.checked == Checked::Fine && self.right && self.complaint().is_none()
    }

    /// What must not be, whatever the fault.
    pub fn complaint(&self) -> Option<String> {
        let fine = self.checked == Checked::Fine;
        let told = match &self.said {
            Said::Unreadable => false,
            Said::State(_, different) => different.iter().all(|name| TOLD_ONCE.contains(&name.as_str())),
        };
        let refused = matches!(self.served, Served::Refused(_));
        let complaint = match () {
            () if self.panicked() => "a panic",
            () if fine && !told => "`check` calls a change fine",
            () if fine && !self.right => "`check` calls it fine, a server does not tell the right winners",
            () if self.refuses_namelessly() => "a refusal that names no file",
            () if refused && !self.untouched => "a server refused the files and changed them",
            () if fine && self.after != Checked::Fine => "`check` finds fault only after the draw",
            () => return None,
        };
        Some(format!("{complaint}: {self:?}"))
    }

    fn refuses_namelessly(&self) -> bool {
        let nameless = |error: &String| !error.contains("sorteo.db");
        matches!(&self.checked, Checked::Refused(error) if nameless(error))
            || matches!(&self.served, Served::Refused(error) if nameless(error))
    }

    fn panicked(&self) -> bool {
        let check_did = |checked: &Checked| matches!(checked, Checked::Refused(error) if error == PANICKED);
        // The store reports a writer that did.
        let server_did = matches!(&self.served, Served::Failed(error) if error.contains(PANICKED));
        check_did(&self.checked) || check_did(&self.after) || server_did
    }
}

impl Served {
    /// Whether the winners are those that must win, among the stored bets and the late ones.
    fn is_right(&self, stored: &Winners) -> bool {
        let Self::Winners { all, late } = self else { return false };
        let mut expected = stored.clone();
        for (side, rows) in late {
            expected.entry(*side).or_default().extend_from_slice(rows);
        }
        *all == expected
    }
}

const PANICKED: &str = "panicked";

fn check_quietly(path: &Path) -> Checked {
    match catch_unwind(AssertUnwindSafe(|| check(path, &mut |_| {}))) {
        Err(_) => Checked::Refused(PANICKED.to_owned()),
        Ok(Err(error)) => Checked::Refused(error.to_string()),
        Ok(Ok(report)) if report.findings.is_empty() => Checked::Fine,
        Ok(Ok(report)) => Checked::Found(report.findings),
    }
}

/// The state that the content is most like.
fn said(path: &Path, case: &Case) -> Said {
    let Ok(content) = Content::read(path) else { return Said::Unreadable };
    let states = case.states.iter().enumerate();
    states
        .map(|(state, expected)| (state, expected.content.differences(&content)))
        .min_by_key(|(_, different)| different.len())
        .map_or(Said::Unreadable, |(state, different)| Said::State(state, different))
}

fn serve(path: &Path) -> Served {
    catch_unwind(|| open_and_draw(path)).unwrap_or_else(|_| Served::Failed(PANICKED.to_owned()))
}

fn open_and_draw(path: &Path) -> Served {
    let failure: Arc<Mutex<Option<String>>> = Arc::default();
    let observer = {
        let failure = Arc::clone(&failure);
        Arc::new(move |event| {
            if let Event::Failed(error) = event {
                *failure.lock().unwrap() = Some(error);
            }
        })
    };
    let store = match SqliteStore::open(&options(path), observer) {
        Ok((store, _)) => store,
        Err(error) => return Served::Refused(error.to_string()),
    };
    let served = take_draw_and_read(&store);
    store.close();
    let failed = failure.lock().unwrap().take();
    match (failed, served) {
        (Some(error), _) | (None, Err(error)) => Served::Failed(error),
        (None, Ok(served)) => served,
    }
}

/// Takes bets of the agencies that still bet, closes them, and reads the winners.
fn take_draw_and_read(store: &SqliteStore) -> Result<Served, String> {
    let failed = |error: StoreError| error.to_string();
    let mut late = Winners::new();
    for agency in BETTING {
        let (batch, winners) = late_batch(agency);
        let ticket = store.append(vec![batch]).map_err(failed)?;
        match ticket.wait().map_err(failed)? {
            Ok(()) => drop(late.insert((OPEN_DRAW, agency), winners)),
            // A commit that is in the log closed it.
            Err(AppendRefusal::AgencyDone | AppendRefusal::DrawClosed) => {}
            Err(refusal) => return Err(format!("{refusal:?}")),
        }
    }
    for agency in BETTING {
        let ticket = store.close_agency(AgencyId(agency), None).map_err(failed)?;
        ticket.wait().map_err(failed)?.map_err(|refusal| format!("{refusal:?}"))?;
    }
    let mut all = Winners::new();
    for draw in 1..=OPEN_DRAW {
        match store.draw(DrawId(draw)).map_err(failed)? {
            Some(status) if status.drawn => {}
            other => return Err(format!("draw {draw} stands as {other:?}")),
        }
        for agency in 1..=AGENCIES {
            let won = store.winners(DrawId(draw), AgencyId(agency), 0, 1000).map_err(failed)?;
            let rows = won.iter().map(|bet| {
                let names = format!("{}|{}", bet.first_name, bet.last_name);
                format!("{names}|{}|{}|{}", bet.document, bet.birthdate, bet.number)
            });
            all.insert((draw, agency), rows.collect());
        }
    }
    Ok(Served::Winners { all, late })
}
