//! The first of the two tables: the VFS itself. It opens and deletes; all else
//! goes straight to the VFS behind it.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use libsqlite3_sys as ffi;
use libsqlite3_sys::{sqlite3_file, sqlite3_filename, sqlite3_int64, sqlite3_syscall_ptr, sqlite3_vfs};

use crate::file::{self, PREFIX_BYTES};
use crate::machine::{FileKind, Operation, Verdict, machine};

/// The newest layouts of the tables that are known here (`sqlite3.h`). A table
/// may claim a version only if it has all of that version's functions.
const VFS_VERSION_MAX: c_int = 3;

/// Puts the shim in front of the default VFS and makes it the default. The
/// error is SQLite's code.
pub(crate) fn register() -> Result<(), c_int> {
    // SAFETY: a null name asks for the default VFS. A registered VFS lives as
    // long as the process, and nobody changes it while it is read here.
    let (real, table) = unsafe {
        let real = ffi::sqlite3_vfs_find(ptr::null());
        (real, real.as_ref().ok_or(ffi::SQLITE_ERROR)?)
    };
    // SQLite keeps the pointer and links the table into its list: so it is
    // leaked, and never looked at from here again.
    let shim = Box::into_raw(Box::new(shim_before(real, table)));
    // SAFETY: the table is complete and lives for ever.
    match unsafe { ffi::sqlite3_vfs_register(shim, 1) } {
        ffi::SQLITE_OK => Ok(()),
        code => Err(code),
    }
}

/// The shim's table: a function wherever the VFS behind it has one.
fn shim_before(real: *mut sqlite3_vfs, table: &sqlite3_vfs) -> sqlite3_vfs {
    sqlite3_vfs {
        iVersion: table.iVersion.min(VFS_VERSION_MAX),
        szOsFile: table.szOsFile + PREFIX_BYTES,
        mxPathname: table.mxPathname,
        pNext: ptr::null_mut(),
        zName: c"faulty_disk".as_ptr(),
        pAppData: real.cast(),
        xOpen: instead_of(table.xOpen, open),
        xDelete: instead_of(table.xDelete, delete),
        xAccess: instead_of(table.xAccess, access),
        xFullPathname: instead_of(table.xFullPathname, full_pathname),
        xDlOpen: instead_of(table.xDlOpen, dl_open),
        xDlError: instead_of(table.xDlError, dl_error),
        xDlSym: instead_of(table.xDlSym, dl_symbol),
        xDlClose: instead_of(table.xDlClose, dl_close),
        xRandomness: instead_of(table.xRandomness, randomness),
        xSleep: instead_of(table.xSleep, sleep),
        xCurrentTime: instead_of(table.xCurrentTime, current_time),
        xGetLastError: instead_of(table.xGetLastError, get_last_error),
        xCurrentTimeInt64: instead_of(table.xCurrentTimeInt64, current_time_int64),
        xSetSystemCall: instead_of(table.xSetSystemCall, set_system_call),
        xGetSystemCall: instead_of(table.xGetSystemCall, get_system_call),
        xNextSystemCall: instead_of(table.xNextSystemCall, next_system_call),
    }
}

/// Our function, if the real table has one there.
pub(crate) fn instead_of<F>(theirs: Option<F>, ours: F) -> Option<F> {
    theirs.map(|_| ours)
}

/// The VFS behind the shim.
///
/// # Safety
/// `vfs` is the shim's.
unsafe fn real(vfs: *mut sqlite3_vfs) -> *mut sqlite3_vfs {
    // SAFETY: the shim's table is live, and its data is the real VFS's address.
    unsafe { (*vfs).pAppData.cast() }
}

/// What a library's symbol is taken for, in the table's own words.
type Symbol = unsafe extern "C" fn(*mut sqlite3_vfs, *mut c_void, *const c_char);

/// Writes functions of the table that only pass the call on.
macro_rules! pass_on {
    ($($name:ident = $method:ident($($argument:ident: $type:ty),*) $(-> $answer:ty)?;)*) => {$(
        unsafe extern "C" fn $name(vfs: *mut sqlite3_vfs, $($argument: $type),*) $(-> $answer)? {
            // SAFETY: SQLite gives our own table, and the arguments are as the
            // real VFS may expect them, since they are passed on untouched.
            unsafe {
                let real = real(vfs);
                let method = (*real).$method.expect("ours is there only if theirs is");
                method(real, $($argument),*)
            }
        }
    )*};
}

pass_on! {
    real_open = xOpen(name: sqlite3_filename, file: *mut sqlite3_file, flags: c_int, out: *mut c_int) -> c_int;
    real_delete = xDelete(name: *const c_char, sync_folder: c_int) -> c_int;
    access = xAccess(name: *const c_char, flags: c_int, out: *mut c_int) -> c_int;
    full_pathname = xFullPathname(name: *const c_char, size: c_int, out: *mut c_char) -> c_int;
    dl_open = xDlOpen(name: *const c_char) -> *mut c_void;
    dl_error = xDlError(size: c_int, message: *mut c_char);
    dl_symbol = xDlSym(library: *mut c_void, name: *const c_char) -> Option<Symbol>;
    dl_close = xDlClose(library: *mut c_void);
    randomness = xRandomness(size: c_int, out: *mut c_char) -> c_int;
    sleep = xSleep(microseconds: c_int) -> c_int;
    current_time = xCurrentTime(out: *mut f64) -> c_int;
    get_last_error = xGetLastError(size: c_int, message: *mut c_char) -> c_int;
    current_time_int64 = xCurrentTimeInt64(out: *mut sqlite3_int64) -> c_int;
    set_system_call = xSetSystemCall(name: *const c_char, call: sqlite3_syscall_ptr) -> c_int;
    get_system_call = xGetSystemCall(name: *const c_char) -> sqlite3_syscall_ptr;
    next_system_call = xNextSystemCall(name: *const c_char) -> *const c_char;
}

/// xOpen. A file that is not counted is opened by the real VFS in the very
/// memory that SQLite gave us: from then on, nothing of it passes through here.
unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let Some(kind) = kind_opened(flags) else {
        // SAFETY: SQLite's own arguments, and memory with more room than it takes.
        return unsafe { real_open(vfs, name, file, flags, out_flags) };
    };
    // SAFETY: SQLite gives memory for a file; without methods it is not open.
    unsafe { (*file).pMethods = ptr::null() };
    // SAFETY: a file of these kinds has a name, which ends with a null byte.
    let path = unsafe { path_of(name) };
    let mut machine = machine();
    if let Verdict::Fail(code) = machine.count(Operation::Open, kind) {
        return code;
    }
    let found = machine.look_at(path);
    // SAFETY: SQLite's own arguments; the memory behind our part is as large as
    // the real VFS asked for, because szOsFile is the sum of both.
    let code = unsafe { real_open(vfs, name, file::real(file), flags, out_flags) };
    if code == ffi::SQLITE_OK {
        machine.meet(path, found);
        machine.disk.opened(path);
    }
    // SAFETY: the real VFS has set up the memory behind our part.
    unsafe { file::wrap(file, path, kind, flags) };
    code
}

/// xDelete: the file first, then, if it is asked for, the folder's sync.
unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: SQLite gives a name that ends with a null byte.
    let path = unsafe { path_of(name) };
    let Some(kind) = kind_deleted(path) else {
        // SAFETY: SQLite's own arguments.
        return unsafe { real_delete(vfs, name, sync_folder) };
    };
    let mut machine = machine();
    if let Verdict::Fail(code) = machine.count(Operation::Delete, kind) {
        return code;
    }
    let found = machine.look_at(path);
    // SAFETY: SQLite's own arguments, without the folder's sync.
    let code = unsafe { real_delete(vfs, name, 0) };
    if code != ffi::SQLITE_OK {
        return code;
    }
    machine.meet(path, found);
    machine.disk.deleted(path);
    // The lowest bit, as the unix VFS has it.
    if sync_folder & 1 == 0 {
        return ffi::SQLITE_OK;
    }
    if let Verdict::Fail(code) = machine.count(Operation::FolderSync, kind) {
        return code;
    }
    machine.disk.folder_synced(path.parent().unwrap_or(path));
    ffi::SQLITE_OK
}

/// What is opened, if it is counted.
fn kind_opened(flags: c_int) -> Option<FileKind> {
    match flags {
        flags if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 => Some(FileKind::Database),
        flags if flags & ffi::SQLITE_OPEN_WAL != 0 => Some(FileKind::Wal),
        flags if flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 => Some(FileKind::Journal),
        _ => None,
    }
}

/// What is deleted, if it is counted: here only the name tells.
fn kind_deleted(path: &Path) -> Option<FileKind> {
    let name = path.as_os_str().as_bytes();
    match name {
        name if name.ends_with(b"-wal") => Some(FileKind::Wal),
        name if name.ends_with(b"-journal") => Some(FileKind::Journal),
        _ => None,
    }
}

/// # Safety
/// `name` ends with a null byte and lives as long as the answer is used.
unsafe fn path_of<'a>(name: *const c_char) -> &'a Path {
    // SAFETY: the caller's promise.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()))
}
