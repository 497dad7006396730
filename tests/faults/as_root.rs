//! Root runs commands on the database of another user's server: that server must still be
//! able to open every file.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use sorteo_test_support::process::{run as to_its_end, sorteo};

use crate::program::Program;
use crate::workplace::{Run, count};

/// The user and the group of the server: `nobody`, whom every system has.
const USER: u32 = 65_534;

/// Why this cannot be tested, if it cannot.
pub fn missing() -> Option<&'static str> {
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(USER), Some(USER)).err().map(|_| "root is needed")
}

/// Whatever root creates, restores or imports belongs to whom the folder or the old database
/// belongs to, with its WAL, lock and what is kept.
pub fn files_keep_their_owner(run: &Run) {
    for workplace in run.rounds(1) {
        let data = &workplace.folder().join("data");
        fs::create_dir(data).unwrap();
        chown(data, Some(USER), Some(USER)).unwrap();
        let command = |arguments: &[&str]| {
            to_its_end(&mut sorteo(data, arguments)).succeeded();
            assert_owner(data);
        };
        fs::write(workplace.folder().join("bets.csv"), "1,Ana,Paz,1,1999-03-17,1\n").unwrap();
        command(&["import", "../bets.csv"]);
        command(&["backup", "../saved.db"]);
        command(&["restore", "../saved.db"]);
        command(&["restore", "../saved.db", "--database", "new.db"]);
        // The group alone is another.
        chown(data.join("sorteo.db"), Some(0), Some(USER)).unwrap();
        to_its_end(&mut sorteo(data, ["restore", "../saved.db"])).succeeded();
        assert_eq!(fs::metadata(data.join("sorteo.db")).unwrap().gid(), USER);
        fs::remove_dir_all(data).unwrap();
        fs::create_dir(data).unwrap();
        chown(data, Some(USER), Some(USER)).unwrap();
        let server = Program::new(&workplace).in_folder(data).start();
        assert_owner(data);
        server.stop();
        // An output that is replaced keeps its owner.
        fs::write(data.join("bets.csv"), "").unwrap();
        chown(data.join("bets.csv"), Some(USER), Some(USER)).unwrap();
        command(&["export", "bets", "--out", "bets.csv", "--force"]);
        count("folders of another user", 1);
    }
}

fn assert_owner(folder: &Path) {
    for file in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let found = file.metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (USER, USER), "{}", file.path().display());
    }
}
