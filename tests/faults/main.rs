//! Faults, one at a time, and what must hold under each.
//!
//! ```text
//! cargo test --test faults                          all tests, a few rounds each
//! cargo test --test faults -- process_death         the tests whose name contains this
//! FAULTS_SEED=7 cargo test --test faults -- NAME    repeats a failure, which prints its seed
//! FAULTS_ROUNDS=20 …                                twenty times as many rounds
//! FAULTS_BINARY=target/release/sorteo …             another build of the server
//! ```
//!
//! Each test starts the real program and simulated agencies ([`crowd`]), which record
//! every operation and its reply ([`history`]); it causes the fault, and then compares
//! the history with the database. A failure prints its seed and keeps its folder. A test
//! that cannot run on this machine is shown and counted as ignored, with the reason.

mod as_root;
mod crowd;
mod cuts;
mod disk;
mod dripping;
mod failing_io;
mod failing_sync;
mod few_files;
mod few_threads;
mod history;
mod injection;
mod loop_disk;
mod moved_files;
mod network;
mod network_disk;
mod observed;
mod other_host;
mod overload;
mod power;
mod process_death;
mod program;
mod proxy;
mod read_only;
mod slow_peers;
mod unread;
mod upload;
mod window;
mod witness;
mod workplace;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use self::workplace::Run;

/// Returns why this machine cannot run a test, if it cannot.
type Missing = fn() -> Option<&'static str>;

/// A fault, and the test that shows what holds under it.
struct Fault {
    name: &'static str,
    needs: &'static [Missing],
    test: fn(&Run),
}

/// The table of faults: each line is a test, and what it needs of the machine.
macro_rules! faults {
    ($($module:ident::$test:ident $(needs $($need:path),+)?;)*) => {
        const FAULTS: &[Fault] = &[$(Fault {
            name: concat!(stringify!($module), "::", stringify!($test)),
            needs: &[$($($need),+)?],
            test: $module::$test,
        }),*];
    };
}

faults! {
    // The process dies.
    process_death::sigkill_under_load;
    process_death::at_every_failpoint;
    process_death::while_a_due_draw_is_made;
    process_death::sigterm_under_load;
    // The disk fails, fills up, and loses what was not synced.
    disk::power_cut_at_every_operation;
    disk::every_operation_fails;
    disk::the_disk_is_gone_at_every_operation;
    disk::full_at_every_operation;
    power::cut needs loop_disk::missing;
    power::cut_after_a_failed_sync needs loop_disk::missing, injection::missing;
    power::the_weaker_setting_loses needs loop_disk::missing;
    failing_sync::of_a_commit needs injection::missing;
    failing_sync::under_load needs injection::missing;
    failing_sync::at_every_sync needs injection::missing;
    failing_sync::of_a_checkpoint needs injection::missing;
    failing_sync::of_what_a_crash_left needs injection::missing;
    failing_sync::of_the_folder needs injection::missing;
    failing_io::no_room_in_the_log needs injection::missing;
    failing_io::no_quota needs injection::missing;
    failing_io::file_size_limit needs failing_io::no_prlimit;
    failing_io::no_room_in_the_database needs injection::missing;
    failing_io::unreadable_database needs injection::missing;
    failing_io::unreadable_log needs injection::missing;
    network_disk::refused needs network_disk::missing;
    network_disk::unless_it_may_be_local needs network_disk::missing;
    // The path does not lead to the server's files, or is not the only one that does.
    moved_files::noticed;
    moved_files::under_load;
    moved_files::two_names;
    moved_files::mounted needs moved_files::no_mounts;
    read_only::can_be_read needs moved_files::no_mounts;
    as_root::files_keep_their_owner needs as_root::missing;
    // The network cuts, drips, stalls and vanishes.
    cuts::cut_at_every_byte;
    network::a_bad_line;
    network::half_open_peers;
    slow_peers::a_thousand_drippers;
    slow_peers::without_a_pause;
    slow_peers::sigterm_among_them;
    unread::peers_that_never_read;
    other_host::a_server_out_of_reach needs other_host::missing;
    other_host::peers_out_of_reach needs other_host::missing;
    // The program uploads, with several batches in flight.
    window::cut_at_many_bytes;
    window::killed_on_either_side;
    // More comes than there is room for.
    overload::more_connections_than_allowed;
    overload::more_writes_than_the_queue;
    overload::more_half_requests_than_the_buffer;
    overload::ten_times_the_load;
    few_files::few_file_descriptors;
    few_files::the_logs_name_is_synced needs few_files::no_strace;
    few_threads::few_threads needs few_threads::missing;
}

impl Fault {
    fn to_trial(&self) -> Trial {
        let &Self { name, needs, test } = self;
        let trial = Trial::test(name, move || {
            test(&Run::of(name));
            Ok(())
        });
        match needs.iter().find_map(|missing| missing()) {
            Some(missing) => trial.with_kind(format!("skipped: {missing}")).with_ignored_flag(true),
            None => trial,
        }
    }
}

fn main() -> ExitCode {
    // A child of one of these tests: the program itself, on a disk with faults.
    if faulty_disk::install_from_env().expect("a plan of the parent's") {
        return sorteo::cli::main();
    }
    let arguments = Arguments::from_args();
    let conclusion = libtest_mimic::run(&arguments, FAULTS.iter().map(Fault::to_trial).collect());
    workplace::report_counts();
    conclusion.exit_code()
}
