"""The bugs that `planted_bugs.py` plants: the table.

Each is a mistake that a person could make in one place and a reviewer could
miss. `breaks` names the invariant that it violates:

    I1  an acknowledged batch is stored whole, exactly once
    I2  a batch without an answer is stored whole or not at all, a refused one never
    I3  the same position with the same rows repeats the OK, with others is a conflict
    I4  one draw, no bet after it, its winners are exactly the winning bets
    I5  an agency reads only its own winners
    I6  memory, connections, queues and the WAL stay bounded under any peer
    I7  the server recovers by itself
    I8  who may not is not served, and what must be encrypted is: nobody acts for an agency
        without its proof, or once that has ended

`old` occurs exactly once in its file. `tests` are arguments of `cargo test`, after
environment variables where it needs any. It is enough that one of them catches the
bug; they run in this order, first the one that shows what the bug does to an agency,
or the quickest.
"""

from typing import NamedTuple


class Bug(NamedTuple):
    name: str
    breaks: str
    file: str
    old: str
    new: str
    tests: tuple
    # Whether every CI run plants it. Its tests must be able to run on any machine.
    few: bool = False


def faults(name, seeds=(1,), rounds=1):
    return tuple(f"FAULTS_SEED={seed} FAULTS_ROUNDS={rounds} --test faults -- {name}" for seed in seeds)


def it(*names):
    return tuple(f"--test it -- {name}" for name in names)


def agency(name):
    return (f"-p sorteo-agency --test it -- {name}",)


def unit(name):
    return (f"--lib -- {name}",)


# Enough rounds to hit what happens only now and then.
SIGKILL_UNDER_LOAD = faults("process_death::sigkill_under_load", seeds=(1, 2, 3), rounds=3)

WRITER = "src/store/sqlite/writer.rs"
TASK = "src/store/sqlite/writer/task.rs"
EXECUTE = "src/store/sqlite/writer/execute.rs"
CHECKPOINTER = "src/store/sqlite/writer/checkpointer.rs"
APPEND = "src/store/sqlite/append.rs"
DRAW = "src/store/sqlite/draw.rs"
CONNECTION = "src/store/sqlite/connection.rs"
OPEN = "src/store/sqlite/open.rs"
SQLITE = "src/store/sqlite.rs"
READERS = "src/store/sqlite/readers.rs"
CHECK = "src/store/sqlite/check/bets.rs"
SERVICE = "src/service.rs"
PEER = "src/server/connection.rs"
TLS_FILES = "src/server/tls/files.rs"
TLS_SESSION = "src/server/tls/session.rs"
CONVERSATION = "src/server/conversation.rs"
OPERATOR = "src/store/sqlite/operator.rs"
ACCESS = "src/service/access.rs"
REACTOR = "src/server/reactor.rs"
TOKENS = "src/store/sqlite/tokens.rs"

# What each peer may ask for.
TABLE = it("identity::table::every_message_from_everybody_under_every_rule_gets_what_the_table_says")
WRONG_PROOFS = it("identity::auth::whatever_is_wrong_with_it_gets_the_same_reply_and_the_end")

BUGS = [
    # ---- The writer: one transaction for a group, answers after its commit ------
    Bug("answer before the commit", "I1", TASK,
        """\
        if let Err(error) = transaction.commit() {
""",
        """\
        let all: Vec<Command> = std::mem::take(&mut { group });
        let group: Vec<Command> = Vec::new();
        for (command, outcome) in all.into_iter().zip(executed.outcomes) {
            outcome.resolve(command);
        }
        let executed = super::execute::Executed { outcomes: Vec::new(), bets: executed.bets, drawn: executed.drawn };
        if let Err(error) = transaction.commit() {
""",
        faults("disk::power_cut_at_every_operation"), few=True),
    Bug("outcomes given to the wrong commands of a group", "I1", TASK,
        "in group.into_iter().zip(executed.outcomes)",
        "in group.into_iter().rev().zip(executed.outcomes)",
        it("store_contract::sqlite::a_refused_append_takes_no_other_with_it")),
    Bug("what a refused append wrote is not rolled back", "I2", APPEND,
        """self.execute("ROLLBACK TO batches")?;""",
        "",
        it("store_contract::sqlite::batches_of_one_append_are_stored_all_or_none")),
    Bug("the draw is announced before its commit", "I4", TASK,
        "        let announcing = executed.",
        """\
        if let Some(status) = executed.drawn {
            (self.observer)(Event::Drawn(status));
        }
        let executed = super::execute::Executed { drawn: None, ..executed };
        let announcing = executed.""",
        it("sqlite_store::writer::a_draw_is_told_after_its_commit_and_before_anyone_reads_of_it")),
    Bug("a write that is refused for now is answered OK", "I1", "src/store/sqlite/writer/command.rs",
        "Self::Append(_, resolver) => resolver.resolve(Err(refusal)),",
        "Self::Append(_, resolver) => resolver.resolve(Ok(Ok(()))),",
        it("sqlite_store::writer::a_write_that_waits_too_long_for_another_process_is_busy_and_not_stored")),
    Bug("as many writes wait as are sent", "I6", WRITER,
        "CommandQueue::new(options.queue_max)",
        "CommandQueue::new(options.queue_max + 1_000_000)",
        it("sqlite_store::writer::a_full_queue_is_busy_and_stores_nothing_of_it")),
    Bug("the log is never copied under load", "I6", CHECKPOINTER,
        "self.pages_since_checkpoint += pages;",
        "self.pages_since_checkpoint = pages;",
        it("sqlite_store::wal::the_log_stays_small_under_many_small_writes")),
    Bug("the log is never reset while somebody reads", "I6", CHECKPOINTER,
        "if wal.pages < self.restart_from_pages {",
        "if wal.pages < i64::MAX {",
        it("sqlite_store::wal::the_log_stays_bounded_though_somebody_always_reads")),

    Bug("a commit that failed is answered OK", "I1", TASK,
        """\
        if let Err(error) = transaction.commit() {
""",
        """\
        if let Err(error) = transaction.commit()
            && error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
        {
""",
        faults("failing_sync::of_a_commit")),
    Bug("a commit that failed is refused, and writing goes on", "I2", TASK,
        "refusal(&error, &self.files).filter(|refusal| *refusal == StoreError::Full)",
        "Some(StoreError::Full)",
        faults("failing_sync::of_a_commit")),
    Bug("a checkpoint whose sync failed is tried again", "I1", CHECKPOINTER,
        """Err(error) => Err(Fatal::new("a checkpoint", &error)),""",
        "Err(_) => Ok(WalState { busy: true, pages: 0, copied: 0 }),",
        faults("failing_sync::of_a_checkpoint")),
    Bug("a disk that is full at the commit ends the server", "I7", TASK,
        "refusal(&error, &self.files).filter(|refusal| *refusal == StoreError::Full)",
        "None",
        faults("disk::full_at_every_operation")),

    # ---- Inside the transaction: places, closing, the draw ----------------------
    Bug("check-then-draw: the UPDATE does not ask whether the draw is made", "I4", DRAW,
        "WHERE id = $2 AND drawn_at IS NULL\n                AND (SELECT complete",
        "WHERE id = $2\n                AND (SELECT complete",
        it("sqlite_store::reopening::reopening_keeps_everything_and_makes_no_second_draw"), few=True),
    Bug("the winners are written in a transaction of their own", "I4", DRAW,
        "    Failpoint::InsideDraw.pass();\n",
        """\
    connection.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
    Failpoint::InsideDraw.pass();
""",
        faults("process_death::while_a_due_draw_is_made")),
    Bug("a draw that is due is not made at the start", "I4", "src/store/sqlite/prepare.rs",
        "let drawn_now = draw::draw_if_due(&transaction, draw)?;",
        "let drawn_now = draw.0 < 0;",
        it("sqlite_store::reopening::a_draw_that_is_due_by_another_process_is_made_when_the_database_is_opened")),
    Bug("a bet is taken after the draw", "I4", APPEND,
        "if newest.drawn || draw",
        "if newest.drawn && batch.position.is_some() || draw",
        it("store_contract::sqlite::nobody_bets_in_a_draw_that_is_made")),
    Bug("a batch of a draw that is over is stored in the next one", "I4", APPEND,
        "if newest.drawn || draw != newest.draw {",
        "if newest.drawn {",
        it("draws::what_names_its_draw_is_about_that_draw_when_the_next_one_is_open")),
    Bug("an agency that is done in a draw that is over is done in the next one", "I4", DRAW,
        "let is_over = draw != newest.draw || newest.drawn || done;",
        "let is_over = newest.drawn || done;",
        it("draws::what_names_its_draw_is_about_that_draw_when_the_next_one_is_open")),
    Bug("an import goes on in the next draw", "I4", "src/import.rs",
        "first_row, draw: Some(draw) }",
        "first_row, draw: Some(draw).filter(|draw| draw.0 < 0) }",
        it("sqlite_store::other_processes::an_import_stores_nothing_in_the_next_draw")),
    Bug("an agency that is done goes on with its upload", "I4", APPEND,
        "        if done {\n",
        "        if done && batch.position.is_none() {\n",
        it("store_contract::sqlite::an_agency_that_is_done_bets_no_more")),
    Bug("the search for winners starts one bet too late", "I4", DRAW,
        "WHERE id > (SELECT coalesce(sum(bets), 0) FROM draws WHERE id < $1)",
        "WHERE id > (SELECT coalesce(sum(bets), 1) FROM draws WHERE id < $1)",
        it("store_contract::sqlite::winners_are_exactly_the_bets_with_the_winning_number")),
    Bug("a count of fewer bets than are stored closes the agency", "I1", DRAW,
        "bets.is_some_and(|bets| bets != stored)",
        "bets.is_some_and(|bets| bets > stored)",
        it("store_contract::sqlite::a_wrong_count_closes_nothing")),
    Bug("other rows at a stored place are taken for the same", "I3", APPEND,
        "Some(stored) if stored == *digest => return Ok(Ok(0)),",
        "Some(_) => return Ok(Ok(0)),",
        it("store_contract::sqlite::other_rows_at_a_stored_place_are_a_conflict")),
    Bug("a batch sent again is a conflict", "I3", APPEND,
        "            Some(stored) if stored == *digest => return Ok(Ok(0)),\n",
        "",
        SIGKILL_UNDER_LOAD
        + it("store_contract::sqlite::a_batch_at_its_place_is_stored_once_however_often_it_is_sent")),
    Bug("a batch sent again after the draw is a conflict", "I3", APPEND,
        "Some(stored) if stored == *digest =>",
        "Some(stored) if stored == *digest && !newest.drawn =>",
        it("store_contract::sqlite::a_stored_batch_repeated_after_betting_closed_is_still_acknowledged")),
    Bug("an upload with a hole is accepted", "I3", APPEND,
        "            Ordering::Greater => ",
        "            Ordering::Greater if position.first_row == next_row + 1 => None,\n            Ordering::Greater => ",
        it("store_contract::sqlite::a_hole_is_refused_with_the_row_to_go_on_with")),
    Bug("a batch's own row is committed after its bets", "I2", APPEND,
        "    Failpoint::InsideBatch.pass();\n",
        """\
    connection.execute_batch("COMMIT; BEGIN IMMEDIATE; SAVEPOINT batch")?;
    Failpoint::InsideBatch.pass();
""",
        faults("process_death::at_every_failpoint")),
    Bug("the last bet of a batch is not stored", "I1", APPEND,
        "while bets.len() >= rows {",
        "while bets.len() > rows {",
        faults("process_death::sigterm_under_load")),

    # ---- Connections, reads and the check ---------------------------------------
    Bug("synchronous is NORMAL", "I1", CONNECTION,
        """"synchronous", "full")""",
        """"synchronous", "normal")""",
        faults("disk::power_cut_at_every_operation") + faults("power::cut")
        + unit("the_writing_connection_has_every_setting"), few=True),
    Bug("the draw is announced again by the next server", "I4", SQLITE,
        "        if drawn_now {\n            observer",
        "        if status.drawn {\n            observer",
        it("sqlite_store::reopening::reopening_keeps_everything_and_makes_no_second_draw")),
    Bug("a draw is answered before it is announced", "I4", "src/store/sqlite/event.rs",
        "drop(self.0.read().unwrap_or_else(PoisonError::into_inner));",
        "drop(self.0.try_read());",
        it("sqlite_store::writer::a_draw_is_told_after_its_commit_and_before_anyone_reads_of_it")),
    Bug("an agency reads the winners of all", "I5", READERS,
        "WHERE winners.draw_id = $1 AND winners.agency = $2 AND winners.bet_id > $3",
        "WHERE (winners.draw_id = $1 OR winners.agency = $2) AND winners.bet_id > $3",
        faults("process_death::sigterm_under_load")),
    Bug("the check does not compare the rows with what was acknowledged", "I1", CHECK,
        ".filter(|batch| batch.digest != digest)",
        ".filter(|batch| batch.digest != digest && batch.bets == 0)",
        it("check::whatever_is_tampered_with_is_found_by_the_check_and_left_as_it_is") + ("--test damage -- a_flipped_byte_of_the_database_is_found_or_changes_nothing",)),

    # ---- Policy -----------------------------------------------------------------
    Bug("the agencies of one payload are stored each by itself", "I2", SERVICE,
        "Request::Payload(batches) => self.begin_batches(batches, submitter, peer),",
        """Request::Payload(batches) => {
                let one_by_one = batches.into_iter();
                one_by_one.map(|batch| self.begin_batches(vec![batch], submitter, peer)).last().expect("a row")
            }""",
        it("server::dialects::every_counted_request_gets_its_answer_however_it_arrives")),
    Bug("a failed write is answered OK", "I1", SERVICE,
        "Err(StoreError::Unknown) => Err(None),",
        "Err(StoreError::Unknown) => Ok(()),",
        it("server::store_errors::an_unknown_outcome_is_never_answered")),
    Bug("a write whose outcome is not known is refused", "I2", SERVICE,
        "Err(StoreError::Unknown) => Err(None),",
        "Err(StoreError::Unknown) => Err(Some(Reason::Unavailable)),",
        it("server::store_errors::a_server_whose_database_fails_ends_with_that_error_and_without_an_answer",
           "server::store_errors::an_unknown_outcome_is_never_answered")),
    Bug("a winner is lost between two pages", "I4", SERVICE,
        "            if !documents.push(bet.document) {\n                is_last = false;",
        "            after = bet.id;\n            if !documents.push(bet.document) {\n                is_last = false;",
        it("server::long_answers::ten_thousand_winners_arrive_whole_in_both_dialects")),

    # ---- The server -------------------------------------------------------------
    Bug("a refusal overtakes the answers before it", "I1", CONVERSATION,
        """\
            Incoming::Refused(reply) => {
                self.finish_commits(output, turn)?;
""",
        "            Incoming::Refused(reply) => {\n",
        it("server::order::pipelined_requests_are_answered_in_order")),
    Bug("a read does not wait for the writes before it", "I3", CONVERSATION,
        "if !is_write(&request) {",
        "if !is_write(&request) && turn.commits.len() >= BATCHES_TOGETHER {",
        it("server::order::long_pipelines_on_many_connections_are_never_answered_out_of_turn")),
    Bug("answers wait without limit for a peer that reads none", "I6", PEER,
        "let is_too_much = unsent > context.limits.output_bytes_max;",
        "let is_too_much = unsent == usize::MAX;",
        it("server::limits::a_peer_that_never_reads_its_statuses_is_closed")),
    Bug("a dripping peer moves its deadline on", "I6", CONVERSATION,
        "self.request_since.get_or_insert(turn.now);",
        "self.request_since = Some(turn.now);",
        it("server::limits::a_dripping_peer_is_closed_though_it_always_sends_something")),
    Bug("one connection fills the queue of writes", "I6", "src/store/sqlite/writer/queue.rs",
        "room == 0 || waiting > 0 && waiting >= room",
        "room == 0",
        unit("a_submitter_with_many_commands_leaves_room_for_another")),
    Bug("writes wait in the order in which they came", "I6", "src/fair_queue.rs",
        "entry.finished_at.max(self.virtual_time).saturating_add(cost)",
        "self.pushed",
        unit("what_is_cheap_does_not_wait_behind_what_others_have_that_is_expensive")),
    Bug("a turn goes on after it has waited for a commit", "I6", "src/server/conversation.rs",
        "self.has_committed || (self.time_is_up)()",
        "(self.time_is_up)()",
        it("server::conversation::a_turn_ends_with_its_first_wait_for_a_commit")),
    Bug("what is much work takes every worker", "I6", "src/server/ready.rs",
        "let heavy = (workers / 16).max(1);",
        "let heavy = workers;",
        unit("however_many_are_heavy_a_light_one_finds_a_worker")),
    Bug("a worker stays with its peer though others wait for one", "I6", PEER,
        "_ if !context.has_spare_worker() => false,",
        "_ if context.handle.is_stopping() => false,",
        it("server::order::two_that_ask_again_and_again_take_turns_at_the_only_worker")),
    Bug("what a closed peer had sent stays counted", "I6", "src/server/buffer_budget.rs",
        "    fn drop(&mut self) {\n        self.set(0);",
        "    fn drop(&mut self) {\n        self.bytes = 0;",
        it("server::limits::what_a_cut_off_peer_had_sent_is_no_longer_counted")),
    Bug("one connection more than allowed", "I6", "src/server/reactor.rs",
        "if self.peers.len() >= self.context.limits.connections_max && ",
        "if self.peers.len() > self.context.limits.connections_max && ",
        it("server::limits::one_connection_too_many_is_closed_without_a_byte_until_another_leaves")),
    Bug("a server whose database failed lives on", "I7", "src/cli/observer.rs",
        "                handle.store_failed(error);\n",
        "                drop(error);\n",
        it("cli::server_ends::a_server_whose_database_fails_ends_with_74_without_an_answer_and_the_next_goes_on")),

    Bug("whoever logs waits for the log's reader", "I6", "src/logging.rs",
        "    let queue = start_queue(format).ok();\n",
        "    let queue = start_queue(format).ok().filter(|_| false);\n",
        it("cli::blocked_log::a_second_sigterm_ends_a_server_whose_log_nobody_reads")),
    Bug("agencies learn of a draw before its line is written", "I4", "src/cli/observer.rs",
        "            logging::flush();\n",
        "",
        it("cli::blocked_log::a_log_that_nobody_reads_stops_neither_bets_nor_the_draw_and_says_afterwards_what_it_lacks")),
    Bug("the draw's line is dropped like any other", "I6", "src/logging/queue.rs",
        "            Self::Vital => QUEUE_BYTES_MAX,\n",
        "            Self::Vital => QUEUE_BYTES_MAX / 2,\n",
        unit("logging::queue")),
    Bug("refusals fill the log", "I6", "src/logging/limits.rs",
        "        let allowed = count.logged < LINES_PER_ADDRESS;\n",
        "        let allowed = count.logged < u32::MAX;\n",
        unit("logging::limits")),
    Bug("a server without threads panics", "I7", "src/cli/serve.rs",
        "    threads::require(&config)?;\n",
        "",
        faults("few_threads::few_threads")),
    Bug("an idle reactor seems dead", "I7", "src/server/reactor.rs",
        "        next.unwrap_or(HEARTBEAT_INTERVAL).min(HEARTBEAT_INTERVAL)\n",
        "        next.unwrap_or(Duration::MAX)\n",
        it("server::waiting::a_reactor_that_has_nothing_to_do_shows_that_it_is_alive")),

    Bug("a server without file descriptors spins", "I6", "src/server/reactor.rs",
        "return Some(now + ACCEPT_PAUSE);",
        "return Some(now);",
        faults("few_files::few_file_descriptors")),

    # ---- The wire, and the agency -----------------------------------------------
    Bug("no dedupe: the place of a batch is dropped", "I1", "crates/protocol/src/wire/framed.rs",
        "[agency, count, upload, first_row] => (agency, count, Some((upload, first_row, None))),",
        "[agency, count, _, _] => (agency, count, None),",
        SIGKILL_UNDER_LOAD, few=True),
    Bug("a batch is stored without its bad row", "I2", "crates/protocol/src/wire/framed.rs",
        "            self.refuse(Reason::Row { row, error });\n",
        "            let _ = Reason::Row { row, error };\n",
        it("server::dialects::every_framed_request_gets_its_answer_and_keeps_the_connection")),
    Bug("the rows before a payload's bad one are stored", "I2", "crates/protocol/src/wire/counted.rs",
        "return Err(Reply::Batch { count: rows, result: Err(Reason::Row { row, error }) });",
        "if rows + row == 0 { return Err(refused(error.into())); }\n            break;",
        it("server::dialects::every_counted_request_gets_its_answer_however_it_arrives")),
    Bug("an upload that goes on sends its first rows again", "I1", "crates/agency/src/upload.rs",
        "        batches.skip(self.stored)?;\n",
        "",
        it("cli::whole_draws::a_whole_draw_gives_each_agency_its_winners_and_a_restart_changes_nothing")),
    Bug("an agency goes on with a broken connection", "I7", "crates/agency/src/client.rs",
        "                    self.disconnect();\n                    if !may_pass",
        "                    if !may_pass",
        faults("window::cut_at_many_bytes")),
    Bug("an upload resumes on the connection on which more is in flight", "I7", "crates/agency/src/upload.rs",
        "            self.client.disconnect();\n",
        "",
        agency("window::after_what_may_pass_an_upload_resumes_behind_what_is_acknowledged")),
    Bug("a batch that was refused counts as stored", "I1", "crates/agency/src/upload.rs",
        "            Ok(Reply::Batch { result: Ok(()), count }) if count == window.oldest() => {}\n",
        "            Ok(Reply::Batch { .. }) => {}\n",
        agency("window::a_refusal_in_mid_window_ends_the_upload_with_its_reason")),
    Bug("progress does not prolong an upload", "I7", "crates/agency/src/upload.rs",
        "            *backoff = Backoff::new(self.client.options());\n",
        "            let _ = &backoff;\n",
        agency("window::progress_prolongs_the_time_until_an_upload_is_given_up")),
    Bug("an upload waits for each reply", "I7", "crates/agency/src/window.rs",
        "self.in_flight.len() < self.open &&",
        "self.in_flight.is_empty() &&",
        agency("window::several_batches_are_in_flight_and_each_is_stored_once")),
    Bug("an upload sends without limit", "I6", "crates/agency/src/window.rs",
        "self.in_flight.len() < self.open &&",
        "self.in_flight.len() < 1_000_000 &&",
        agency("window::a_file_that_changes_while_batches_are_in_flight_sends_no_more")),
    Bug("a file that changed is sent on", "I1", "crates/agency/src/file.rs",
        "if Version::of(path)? != self.scan.version {",
        "if false {",
        agency("window::a_file_that_changes_while_batches_are_in_flight_sends_no_more")),
    Bug("a counted agency sends again what may be stored", "I1", "crates/agency/src/counted.rs",
        """\
        let reply = ask(connection, options, &request)?;
        match reply.refusal() {
            None => return Ok(()),
            Some(Reason::Busy)""",
        """\
        let reply = match ask(connection, options, &request) {
            Err(AgencyError::Unknown { .. }) => {
                *connection = connect(options, Dialect::Counted)?;
                ask(connection, options, &request)?
            }
            reply => reply?,
        };
        match reply.refusal() {
            None => return Ok(()),
            Some(Reason::Busy)""",
        it("cli::whole_draws::a_counted_upload_whose_answer_is_lost_says_so_and_sends_nothing_again")),

    # ---- Draws that repeat ------------------------------------------------------
    Bug("who waits for a draw is told of the next one", "I4", SERVICE,
        "self.winners_page(awaited.agency, 0, Some(awaited.draw))",
        "self.winners_page(awaited.agency, 0, None)",
        it("draws::who_waits_for_a_draw_gets_its_winners_though_the_next_one_opens_first")),
    Bug("a late question closes an agency in the next draw", "I4", SERVICE,
        "        self.store.previous_draw_for(agency)\n",
        "        Ok(None)\n",
        it("draws::a_counted_agency_that_asks_late_gets_its_winners_and_is_not_done_in_the_next_draw")),
    Bug("the next draw opens while bets are taken", "I4", OPERATOR,
        "            if !status.drawn {",
        "            if status.bets == u64::MAX {",
        it("draws::the_next_draw_opens_only_behind_one_that_is_made_and_keeps_what_it_is_not_told")),
    Bug("a mistyped agency counts as done", "I4", OPERATOR,
        "            if !is_known && !force {",
        "            if !is_known && force {",
        it("draws::an_agency_nobody_knows_is_closed_only_by_force")),
    Bug("a restarted server changes a draw that an operator opened", "I4", "src/store/sqlite/terms.rs",
        "action IN ('open-draw', 'set-draw'))\"",
        "action = 'other')\"",
        it("draws::a_restarted_server_leaves_a_draw_as_the_operator_opened_it_and_says_so")),
    Bug("what an agency sent is not counted before it is done", "I4", EXECUTE,
        "                appender.flush()?;\n",
        "",
        unit("a_close_sees_what_its_group_stored_before_it_and_the_totals_hold_the_rest")),
    Bug("what a refused append would add is counted", "I4", APPEND,
        "            self.forget();\n            self.execute",
        "            self.execute",
        it("store_contract::sqlite::batches_of_one_append_are_stored_all_or_none")),
    Bug("an agency that a draw does not expect may bet", "I4", APPEND,
        "            return Ok(Some(AppendRefusal::NotAdmitted(refusal)));",
        "            let _ = refusal;",
        it("store_contract::sqlite::a_draw_of_certain_agencies_admits_no_other_and_waits_for_all")),
    Bug("a draw admits one agency too many", "I6", "src/store/sqlite/admission.rs",
        "newest.agencies >= agencies_max",
        "newest.agencies > agencies_max",
        it("store_contract::sqlite::a_draw_admits_so_many_agencies_and_no_more")),
    Bug("an agency that is not expected any more counts as done", "I4", "src/store/sqlite/terms.rs",
        "UPDATE draws SET done = (SELECT done FROM expected_done WHERE draw = $1) WHERE id = $1",
        "UPDATE draws SET done = done WHERE id = $1",
        it("draws::a_mistyped_agency_is_put_right_by_setting_which_agencies_the_draw_expects")),
    Bug("a draw does not record the bytes of its winners", "I5", "src/store/sqlite/totals.rs",
        "SET winners = won.winners, winner_text_bytes = won.text_bytes",
        "SET winners = won.winners",
        it("store_contract::sqlite::the_size_of_the_winners_is_counted_in_bytes")),
    Bug("an upload goes on in the next draw", "I1", "crates/agency/src/upload.rs",
        "(self.scan.upload.clone(), Some(self.draw));\n        let position",
        "(self.scan.upload.clone(), None);\n        let position",
        it("draws::an_upload_sends_nothing_into_the_next_draw")),

    # ---- TLS --------------------------------------------------------------------
    Bug("TLS: a plain peer is served where it is required", "I8", PEER,
        "(_, Some(tls)) if tls.is_required() => Err(CloseReason::TlsRequired),",
        "(_, Some(tls)) if tls.is_required() && false => Err(CloseReason::TlsRequired),",
        it("server::tls::refused::where_tls_is_required_a_plain_peer"), few=True),
    Bug("TLS: plaintext is left where no event comes for it", "I7", TLS_SESSION,
        "            io::BufRead::consume(&mut reader, bytes);\n",
        "            io::BufRead::consume(&mut reader, bytes);\n            return;\n",
        it("server::tls::sessions::many_requests_in_one_record")),
    Bug("TLS: what waits for the peer is not watched", "I7", PEER,
        " && !self.transport.wants_write()\n",
        "\n",
        it("server::tls::sessions::a_reply_of_any_length")),
    Bug("TLS: nothing is said at the end", "I2", TLS_SESSION,
        "            self.connection.send_close_notify();\n",
        "",
        it("server::tls::sessions::both_ends_of_a_session_are_said")),
    Bug("TLS: what follows the client's end resets the connection", "I1", PEER,
        "        if !self.transport.is_tls() {\n            return Err(CloseReason::Eof);",
        "        if true {\n            return Err(CloseReason::Eof);",
        it("server::tls::sessions::both_ends_of_a_session_are_said")),
    Bug("TLS: the peer is not told why", "I8", PEER,
        "        let _ = self.transport.send(&[]);\n        self.begin_to_linger();\n",
        "        self.begin_to_linger();\n",
        it("server::tls::refused::a_client_certificate_that_is_not_right")),
    Bug("TLS: revoked certificates are accepted", "I8", TLS_FILES,
        ".with_crls(crls)",
        ".with_crls(crls.into_iter().filter(|_| false))",
        it("server::tls::refused::a_client_certificate_that_is_not_right"), few=True),
    Bug("TLS: a CRL counts for ever", "I8", TLS_FILES,
        "        .enforce_revocation_expiration()\n",
        "",
        it("server::tls::reload::once_a_crl_has_expired")),
    Bug("TLS: a certificate of nobody is accepted", "I8", "src/server/tls/verifier.rs",
        "            None => Err(CertificateError::ApplicationVerificationFailure.into()),",
        "            None => Ok(verified),",
        it("server::tls::refused::a_client_certificate_that_is_not_right")),
    Bug("TLS: a certificate of two agencies is the first one's", "I8", "src/server/tls/identity.rs",
        "(Some(name), None) => read_agency(name),",
        "(Some(name), _) => read_agency(name),",
        it("server::tls::refused::a_client_certificate_that_is_not_right")),
    Bug("TLS: any protocol is accepted", "I8", TLS_FILES,
        "        config.alpn_protocols = vec![alpn.to_vec()];\n",
        "        let _ = alpn;\n",
        it("server::tls::refused::a_protocol_that_is_not_ours")),
    Bug("TLS: any number of handshakes may begin", "I6", PEER,
        "(FirstByte::Tls, Some(_)) if !context.handshakes.allows(&self.ip.into()) => {",
        "(FirstByte::Tls, Some(_)) if false && !context.handshakes.allows(&self.ip.into()) => {",
        it("server::tls::refused::an_address_that_begins_too_many")),
    Bug("TLS: what drips prolongs the handshake", "I6", PEER,
        "self.transport.handshake_since().map(|since| since + limits.handshake_timeout)",
        "self.transport.handshake_since().map(|_| Instant::now() + limits.handshake_timeout)",
        it("server::tls::stalled::a_peer_that_drips_its_handshake")),
    Bug("TLS: a record may drip for ever", "I6", PEER,
        "self.conversation.request_since(), self.transport.record_since()];",
        "self.conversation.request_since(), None];",
        it("server::tls::sessions::a_record_that_does_not_arrive_whole")),
    Bug("TLS: a record behind a wait is late when the wait ends", "I7", PEER,
        "            self.transport.postpone_record(Instant::now());\n",
        "",
        it("server::tls::sessions::a_part_of_a_record_behind_a_wait")),
    Bug("TLS: handshakes take every worker", "I6", "src/server/ready.rs",
        "handshakes: Lane::new(handshakes),",
        "handshakes: Lane::new(workers),",
        unit("server::ready")),
    Bug("TLS: a flood of handshakes delays those of others", "I6", "src/server/ready.rs",
        "match self.weight == Weight::Handshake || self.is_strangers {",
        "match self.weight == Weight::Handshake && self.is_strangers {",
        it("server::tls::stalled::a_flood_of_handshakes")),
    Bug("TLS: a server that stops waits for handshakes", "I7", PEER,
        "            || self.transport.is_handshaking()\n",
        "",
        it("server::tls::sessions::a_server_that_stops_says_so")),
    Bug("TLS: SIGHUP leaves the old certificate", "I7", "src/cli/serve.rs",
        "            tls.reload(&config.files)?;\n",
        "            let _ = tls;\n",
        it("server::tls::files::sighup_takes_new_files")),
    Bug("TLS: a key that others can read is used", "I8", "src/secret_file.rs",
        "    mode & OTHERS & !allowed == 0\n",
        "    mode & OTHERS & !allowed & 0o002 == 0\n",
        it("server::tls::files::every_wrong_file")),
    Bug("TLS: the key of another certificate is used", "I8", TLS_FILES,
        "Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {",
        "Ok(()) | Err(rustls::Error::InconsistentKeys(_)) => {",
        it("server::tls::files::every_wrong_file")),
    Bug("TLS: an expired certificate is used", "I8", TLS_FILES,
        "() if now > validity.not_after =>",
        "() if now > validity.not_after && number > 2 =>",
        it("server::tls::files::every_wrong_file")),
    Bug("TLS: the order of the chain does not matter", "I8", TLS_FILES,
        "parsed.windows(2)",
        "parsed.windows(3)",
        it("server::tls::files::every_wrong_file")),
    Bug("TLS: the signatures of the chain do not matter", "I8", TLS_FILES,
        "Err(error) if chain.len() > 1 =>",
        "Err(error) if chain.len() > 2 =>",
        it("server::tls::files::every_wrong_file")),

    # ---- Beside the server ------------------------------------------------------
    Bug("operators who look take the server's locks away", "I1", "src/store/sqlite/overview.rs",
        "open::open_beside_store(files)?",
        "open::open_reader(files)?",
        it("ops::those_who_look_take_no_lock_from_the_server"), few=True),
    Bug("streams of events take every place", "I6", "src/ops/routes.rs",
        "Semaphore::new(REQUESTS_MAX)",
        "Semaphore::new(2 * REQUESTS_MAX)",
        it("ops::streams_of_events_leave_places_for_probes")),
    Bug("silent peers keep the operators' places", "I6", "src/ops/places.rs",
        "self.lock().by_turn.pop_first()",
        "self.lock().by_turn.pop_first().filter(|_| false)",
        it("ops::peers_that_are_slow_or_idle_make_room_for_probes")),
    Bug("a refused command copies the log", "I1", OPEN,
        "    checkpoint_on_close(&connection, false)\n",
        "    checkpoint_on_close(&connection, true)\n",
        it("draws::a_command_that_is_refused_leaves_the_log_where_it_is")),
    Bug("links to a database are not followed", "I1", SQLITE,
        "let files = DatabaseFiles::resolve(&options.database);",
        "let files = DatabaseFiles::at(options.database.clone());",
        it("sqlite_store::opening::a_link_to_a_database_is_that_database")),
    Bug("an output replaces any database", "I1", "src/atomic_file.rs",
        "match is_of_sqlite(target) || is_beside_one",
        "match false && is_beside_one",
        it("cli::written_files::no_output_replaces_a_database_or_goes_through_a_link")),
    Bug("the log stays when its reader has gone", "I6", CHECKPOINTER,
        "(self.truncated, self.waited) = (!wal.is_read(), wal.is_read());",
        "(self.truncated, self.waited) = (true, wal.is_read());",
        it("sqlite_store::wal::the_log_is_emptied_when_a_reader_has_gone_though_nothing_more_is_written")),
    Bug("a used-up quota ends the server", "I7", "src/store/sqlite/room.rs",
        "=> !has_room(files)",
        "=> false",
        faults("failing_io::file_size_limit") + faults("failing_io::no_quota")),
    Bug("a server does not look where its files are", "I1", TASK,
        "        self.served.verify().map_err(Fatal)?;\n",
        "",
        faults("moved_files::noticed")),
    Bug("a file with two names is served", "I1", SQLITE,
        "        identity::refuse_other_names(&files)?;\n",
        "",
        faults("moved_files::two_names")),
    Bug("the lock is on the name alone", "I1", "src/store/sqlite/lock.rs",
        "        lock(&file, path, files)?;\n",
        "",
        unit("store::sqlite::lock::tests::the_file_is_locked_whatever_its_name_and_the_holder_is_named")),
    Bug("whatever lies there takes the database's place", "I1", "src/store/sqlite/pending_restore.rs",
        "        refuse_foreign_file(&DatabaseFiles::at(copy.clone()))?;\n",
        "",
        it("data::a_file_that_is_no_database_of_ours_takes_the_place_of_none")),
    Bug("an export replaces the database", "I1", "src/cli/export.rs",
        "            refuse_own_files(&database, path)?;\n",
        "",
        it("data::nothing_is_written_over_the_database_itself")),

    # ---- Identity: who may do what -----------------------------------------------
    Bug("one request is for any agency", "I8", ACCESS,
        """\
        | Request::DoneAndWinners { agency: named }
        | Request::Resume { agency: named, .. } => *named == agency,
        Request::Hello""",
        """\
        | Request::DoneAndWinners { agency: named } => *named == agency,
        Request::Resume { .. } | Request::Hello""",
        TABLE),
    Bug("one agency's rows in a payload speak for all", "I8", ACCESS,
        "batches.iter().all(is_of)",
        "batches.iter().any(is_of)",
        TABLE, few=True),
    Bug("only a payload's first agency is looked at", "I8", ACCESS,
        "batches.iter().all(is_of)",
        "batches.first().is_some_and(is_of)",
        TABLE),
    Bug("a stranger may ask how the draw stands", "I8", ACCESS,
        "None if self.auth == Auth::Required => ",
        "None if self.auth == Auth::Required && !matches!(request, Request::Hello | Request::Status) => ",
        TABLE),
    Bug("a stranger's malformed requests are answered", "I8", CONVERSATION,
        "Incoming::Refused(reply) | Incoming::RefusedForGood(reply) if self.awaits_auth(turn.service) => {",
        "Incoming::Refused(reply) | Incoming::RefusedForGood(reply) if false => {",
        TABLE),
    Bug("a stranger's batch is read to its end", "I6", CONVERSATION,
        "                self.refuse_unproved_batch(input, output, turn);\n",
        "",
        TABLE),
    Bug("a stranger's payload is kept", "I6", CONVERSATION,
        "input.len() > UNPROVED_BYTES_MAX",
        "input.len() > 1_000 * UNPROVED_BYTES_MAX",
        it("identity::strangers::a_stranger_gets_no_memory_for_what_it_announces")),
    Bug("the beginning of a digest is enough", "I8", ACCESS,
        "token.digest().ct_eq(&digest)",
        "token.digest()[..2].ct_eq(&digest[..2])",
        it("identity::auth::a_token_that_is_like_another_is_not_that_one")),
    Bug("the id of a token is enough", "I8", ACCESS,
        "            Some(_) if !is_right => Err(AuthFailure::WrongSecret),\n",
        "",
        WRONG_PROOFS),
    Bug("an expired token counts", "I8", ACCESS,
        "            Some(found) if !found.is_valid(SystemTime::now()) => Err(AuthFailure::Expired),\n",
        "",
        WRONG_PROOFS),
    Bug("a revoked token counts", "I8", TOKENS,
        "expires_at, revoked_at IS NOT NULL FROM tokens WHERE id = $1",
        "expires_at, FALSE FROM tokens WHERE id = $1",
        WRONG_PROOFS),
    Bug("an operator's token is any agency's", "I8", ACCESS,
        "if found.holder != TokenHolder::Agency(*agency) {",
        "if matches!(found.holder, TokenHolder::Agency(other) if other != *agency) {",
        WRONG_PROOFS),
    Bug("an agency's token is any agency's", "I8", ACCESS,
        "if found.holder != TokenHolder::Agency(*agency) {",
        "if !matches!(found.holder, TokenHolder::Agency(_)) {",
        WRONG_PROOFS),
    Bug("the agency is the one that was claimed first", "I8", CONVERSATION,
        "                self.identity = Some(identity);\n",
        "                self.identity.get_or_insert(identity);\n",
        it("identity::auth::a_second_auth_makes_the_connection_the_other_agencys_or_ends_it")),
    Bug("after a wrong AUTH the old identity stays", "I8", CONVERSATION,
        """\
                self.phase = Phase::Closing;
                Err(reason.ok_or""",
        """\
                Err(reason.ok_or""",
        it("identity::auth::a_second_auth_makes_the_connection_the_other_agencys_or_ends_it")),
    Bug("a connection's place says who its peer is", "I8", CONVERSATION,
        """\
            identity: None,
            certified: None,
""",
        """\
            identity: (submitter.0 == 0)
                .then(|| sorteo_protocol::AgencyId(1))
                .map(Identity::by_certificate),
            certified: None,
""",
        it("identity::auth::who_comes_next_into_a_connections_place_is_a_stranger_again")),
    Bug("failures are answered without a limit", "I6", ACCESS,
        "self.failures.allows(&peer.ip.into())",
        "self.failures.allows(&peer.ip.into()) || true",
        it("identity::strangers::failures_beyond_the_limit_get_no_reply_and_the_right_token_still_does")),
    Bug("an agency gives up its place", "I6", REACTOR,
        """\
        if connection.is_proved() {
            self.strangers.remove(key);
        }
""",
        "",
        it("identity::strangers::strangers_give_up_their_places_to_others_and_an_agency_never_does")),
    Bug("a stranger that has gone gives up a place", "I6", REACTOR,
        """\
        self.strangers.remove(key);
        self.peers.remove(key);
""",
        """\
        self.peers.remove(key);
""",
        it("identity::strangers::strangers_give_up_their_places_to_others_and_an_agency_never_does")),
    Bug("a stranger may stay as long as others", "I6", PEER,
        "[self.request_deadline(limits), self.auth_deadline()].into_iter().flatten().min()",
        "[self.request_deadline(limits)].into_iter().flatten().min()",
        it("identity::strangers::a_peer_that_is_silent_or_drips")),
    Bug("a parked connection outlives its token", "I8", REACTOR,
        """\
            if self.context.handle.take_ended_tokens() {
                self.close_ended();
            }
""",
        """\
            self.context.handle.take_ended_tokens();
""",
        it("identity::ended::revoking_a_token_closes_all_its_connections_and_no_other")),
    Bug("a connection outlives its token's end", "I8", ACCESS,
        "Ok(has_changed || ends.values().any(|end| since < *end && *end <= now))",
        "Ok(has_changed || ends.values().any(|end| since < *end && *end < since))",
        it("identity::ended::a_token_that_expires_closes_all_its_connections")),
    Bug("only what expires ends", "I8", TOKENS,
        """\
              WHERE revoked_at IS NOT NULL OR expires_at IS NOT NULL",
""",
        """\
              WHERE expires_at IS NOT NULL",
""",
        it("store_contract::sqlite::a_token_ends_when_it_expires_and_for_good_when_it_is_revoked")),
    Bug("one end that cannot be read keeps all alive", "I8", TOKENS,
        "Ok(id.parse().ok().map(|id| (id, end.unwrap_or(SystemTime::UNIX_EPOCH))))",
        "Ok(id.parse().ok().map(|id| (id, end.expect(\"a time\"))))",
        it("identity::ended::a_token_whose_end_cannot_be_read_keeps_no_other_alive")),
    Bug("a secret is logged", "I8", "src/service/lines.rs",
        "let token = claim.map(|claim| claim.token.id());",
        "let token = claim.map(|claim| claim.token.reveal().to_owned());",
        it("identity::token_command::the_secret_is_nowhere_but_on_standard_output")),
    Bug("the audit does not say who did it", "I8", "src/store/sqlite/audit.rs",
        "detail, actor()]",
        "detail, None::<String>]",
        it("identity::token_command::a_token_is_added_listed_rotated_and_revoked")),
    Bug("stopping waits for the uses of tokens", "I7", SERVICE,
        "ticket.wait_at_most(USES_WRITTEN_WITHIN).unwrap_or(Err(StoreError::Busy))",
        "ticket.wait()",
        it("server::stopping::stopping_does_not_wait_for_a_writer_that_records_no_uses_of_tokens")),
    Bug("a revocation is not recorded", "I8", "src/store/sqlite/operator/tokens.rs",
        """\
                record(transaction, "token-revoke", id, token.holder, "")?;
""",
        "",
        it("store_contract::sqlite::the_version_of_the_tokens_is_another_after_each_change",
           "identity::ended::revoking_a_token_closes_all_its_connections_and_no_other")),
    Bug("a rotated token does not end", "I8", "src/store/sqlite/operator/tokens.rs",
        "            tokens::expire(transaction, id, old_until)?;\n",
        "",
        it("identity::token_command::a_token_is_added_listed_rotated_and_revoked")),
    Bug("broken tokens are served", "I8", "src/store/sqlite/verify.rs",
        "vec![small_tables, tokens, ends_of_large_tables,",
        "vec![small_tables, ends_of_large_tables,",
        it("check::a_damaged_or_altered_database_is_refused_with_74_and_left_as_it_is")),
    Bug("sets of agencies are unknown before tokens", "I7", "src/store/sqlite/schema.rs",
        "Ok(version(connection)? >= 2)",
        "Ok(version(connection)? >= 3)",
        it("migration::a_database_with_sets_of_agencies_and_without_tokens_is_brought_up_to_date")),
]
