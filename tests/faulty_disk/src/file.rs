//! The second of the two tables: what is done to an open file. Counted
//! operations ask the machine first; all else goes straight to the real file.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use std::{fs, ptr, slice};

use libsqlite3_sys as ffi;
use libsqlite3_sys::{sqlite3_file, sqlite3_int64, sqlite3_io_methods};

use crate::machine::{FileKind, Operation, Verdict, machine, with_suffix};
use crate::vfs::instead_of;

/// The newest layout of the table that is known here: 2 added the shared
/// memory, 3 the mapped pages.
const IO_VERSION_MAX: c_int = 3;

/// What is ours of an open file. SQLite gives memory for it and, right behind
/// it, for the real VFS's own file; it may look only at the first field.
#[repr(C)]
struct Shim {
    base: sqlite3_file,
    /// The table that `base` points to. Each file has its own, because each real
    /// file may have another: one without locks, say, has no shared memory.
    methods: sqlite3_io_methods,
    path: PathBuf,
    kind: FileKind,
    /// Whether the next successful sync is of the folder too. The unix VFS does
    /// so at the first sync of a log or journal that it may have made.
    syncs_folder: Cell<bool>,
}

/// Bytes that an open file takes beyond the real VFS's.
pub(crate) const PREFIX_BYTES: c_int = size_of::<Shim>() as c_int;
// SQLite aligns to 8 bytes what it allocates, so the real file is aligned too.
const _: () = assert!(align_of::<Shim>() == 8 && size_of::<Shim>().is_multiple_of(8));

/// The real VFS's file behind ours.
pub(crate) fn real(file: *mut sqlite3_file) -> *mut sqlite3_file {
    file.wrapping_byte_add(size_of::<Shim>())
}

/// Sets up our part of a file that the real VFS has opened, or tried to.
///
/// # Safety
/// `file` has room for a `Shim` and, behind it, the real VFS's file, which its
/// xOpen has set up.
pub(crate) unsafe fn wrap(file: *mut sqlite3_file, path: &Path, kind: FileKind, flags: c_int) {
    // SAFETY: after its xOpen, the real file's methods are null or a table that
    // lives as long as the file.
    let Some(theirs) = (unsafe { (*real(file)).pMethods.as_ref() }) else { return };
    let may_be_new = kind != FileKind::Database && flags & ffi::SQLITE_OPEN_CREATE != 0;
    let shim = Shim {
        base: sqlite3_file { pMethods: ptr::null() },
        methods: shim_before(theirs),
        path: path.to_owned(),
        kind,
        syncs_folder: Cell::new(may_be_new),
    };
    let place = file.cast::<Shim>();
    // SAFETY: the caller's promise. SQLite does not move an open file, so that
    // the table can be pointed to where it lies.
    unsafe {
        place.write(shim);
        (*place).base.pMethods = &raw const (*place).methods;
    }
}

/// The shim's table: a function wherever the real file has one.
fn shim_before(theirs: &sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods {
        iVersion: theirs.iVersion.min(IO_VERSION_MAX),
        xClose: instead_of(theirs.xClose, close),
        xRead: instead_of(theirs.xRead, read),
        xWrite: instead_of(theirs.xWrite, write),
        xTruncate: instead_of(theirs.xTruncate, truncate),
        xSync: instead_of(theirs.xSync, sync),
        xFileSize: instead_of(theirs.xFileSize, file_size),
        xLock: instead_of(theirs.xLock, lock),
        xUnlock: instead_of(theirs.xUnlock, unlock),
        xCheckReservedLock: instead_of(theirs.xCheckReservedLock, check_reserved_lock),
        xFileControl: instead_of(theirs.xFileControl, file_control),
        xSectorSize: instead_of(theirs.xSectorSize, sector_size),
        xDeviceCharacteristics: instead_of(theirs.xDeviceCharacteristics, device_characteristics),
        xShmMap: instead_of(theirs.xShmMap, shm_map),
        xShmLock: instead_of(theirs.xShmLock, shm_lock),
        xShmBarrier: instead_of(theirs.xShmBarrier, shm_barrier),
        xShmUnmap: instead_of(theirs.xShmUnmap, shm_unmap),
        xFetch: instead_of(theirs.xFetch, fetch),
        xUnfetch: instead_of(theirs.xUnfetch, unfetch),
    }
}

/// Writes functions of the table that only pass the call on.
macro_rules! pass_on {
    ($($name:ident = $method:ident($($argument:ident: $type:ty),*) $(-> $answer:ty)?;)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file, $($argument: $type),*) $(-> $answer)? {
            // SAFETY: SQLite gives a file that is open, so the real one behind
            // it is too; the arguments are passed on as the real file expects.
            unsafe {
                let real = real(file);
                let method = (*(*real).pMethods).$method.expect("ours is there only if theirs is");
                method(real, $($argument),*)
            }
        }
    )*};
}

pass_on! {
    real_close = xClose() -> c_int;
    real_read = xRead(buffer: *mut c_void, size: c_int, offset: sqlite3_int64) -> c_int;
    real_write = xWrite(bytes: *const c_void, size: c_int, offset: sqlite3_int64) -> c_int;
    real_truncate = xTruncate(length: sqlite3_int64) -> c_int;
    real_file_size = xFileSize(out: *mut sqlite3_int64) -> c_int;
    real_device_characteristics = xDeviceCharacteristics() -> c_int;
    real_shm_map = xShmMap(region: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int;
    lock = xLock(level: c_int) -> c_int;
    unlock = xUnlock(level: c_int) -> c_int;
    check_reserved_lock = xCheckReservedLock(out: *mut c_int) -> c_int;
    file_control = xFileControl(operation: c_int, argument: *mut c_void) -> c_int;
    sector_size = xSectorSize() -> c_int;
    shm_lock = xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int;
    shm_barrier = xShmBarrier();
    shm_unmap = xShmUnmap(delete: c_int) -> c_int;
    fetch = xFetch(offset: sqlite3_int64, size: c_int, out: *mut *mut c_void) -> c_int;
    unfetch = xUnfetch(offset: sqlite3_int64, page: *mut c_void) -> c_int;
}

/// Our part of an open file.
///
/// # Safety
/// `file` was set up by [`wrap`] and is not closed while the answer is used.
unsafe fn shim<'a>(file: *mut sqlite3_file) -> &'a Shim {
    // SAFETY: the caller's promise. What changes in it is in a `Cell`, and
    // SQLite does not use one file from two threads at a time.
    unsafe { &*file.cast::<Shim>() }
}

/// Counts an operation and, unless it fails, carries it out while no other
/// counted operation runs.
fn counted(shim: &Shim, operation: Operation, carry_out: impl FnOnce() -> c_int) -> c_int {
    let mut machine = machine();
    match machine.count(operation, shim.kind) {
        Verdict::Proceed => carry_out(),
        Verdict::Fail(code) | Verdict::Half(code) => code,
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file, once. The real one first; then our
    // fields are dropped where they lie, and SQLite forgets the table.
    unsafe {
        let code = real_close(file);
        ptr::drop_in_place(file.cast::<Shim>());
        code
    }
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    buffer: *mut c_void,
    size: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite reads from an open file, into a buffer of that size.
    unsafe { counted(shim(file), Operation::Read, || real_read(file, buffer, size, offset)) }
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, out: *mut sqlite3_int64) -> c_int {
    // SAFETY: SQLite asks an open file, and has a place for the answer.
    unsafe { counted(shim(file), Operation::FileSize, || real_file_size(file, out)) }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    buffer: *const c_void,
    size: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite writes to an open file, from a buffer of that size.
    let (shim, bytes) = unsafe { (shim(file), slice::from_raw_parts(buffer.cast::<u8>(), size as usize)) };
    let start = offset as usize;
    let mut machine = machine();
    let grows = start + bytes.len() > machine.disk.length(&shim.path);
    let (bytes, half) = match machine.count(Operation::Write { grows }, shim.kind) {
        Verdict::Proceed => (bytes, None),
        Verdict::Half(code) => (&bytes[..bytes.len() / 2], Some(code)),
        Verdict::Fail(code) => return code,
    };
    // SAFETY: the file is open; the buffer is SQLite's, or the front of it.
    let code = unsafe { real_write(file, bytes.as_ptr().cast(), bytes.len() as c_int, offset) };
    if code == ffi::SQLITE_OK {
        machine.disk.written(&shim.path, start, bytes);
    }
    half.unwrap_or(code)
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, length: sqlite3_int64) -> c_int {
    // SAFETY: SQLite truncates an open file.
    let shim = unsafe { shim(file) };
    let mut machine = machine();
    let grows = length as usize > machine.disk.length(&shim.path);
    if let Verdict::Fail(code) = machine.count(Operation::Truncate { grows }, shim.kind) {
        return code;
    }
    // SAFETY: the file is open.
    let code = unsafe { real_truncate(file, length) };
    if code == ffi::SQLITE_OK {
        machine.disk.truncated(&shim.path, length as usize);
    }
    code
}

/// xSync. It is not passed on: what is durable here is decided by the model.
unsafe extern "C" fn sync(file: *mut sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite syncs an open file.
    let shim = unsafe { shim(file) };
    let mut machine = machine();
    if let Verdict::Fail(code) = machine.count(Operation::Sync, shim.kind) {
        let mut random = machine.random();
        machine.disk.sync_failed(&shim.path, &mut random);
        return code;
    }
    machine.disk.synced(&shim.path);
    if shim.syncs_folder.take() {
        machine.disk.folder_synced(shim.path.parent().unwrap_or(&shim.path));
    }
    ffi::SQLITE_OK
}

/// xDeviceCharacteristics: what SQLite may take for granted of the disk. Only
/// promises that a power cut here keeps are passed on.
///
/// POWERSAFE_OVERWRITE, which the unix VFS gives unless it is told otherwise,
/// says that a torn write damages no byte outside the written range. It is kept,
/// because a sector that a torn write spares keeps all its old bytes, and of a
/// sector that the write covers in part only the written bytes change. Without
/// it, SQLite pads each commit in the log to a whole sector, so the program
/// would be tested with another log than it writes in production.
///
/// Not kept: that writes are atomic, are done in order, or that a file grows
/// only once its new bytes are there.
unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    const KEPT: c_int = ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
        | ffi::SQLITE_IOCAP_SUBPAGE_READ
        | ffi::SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN
        | ffi::SQLITE_IOCAP_IMMUTABLE;
    // SAFETY: SQLite asks an open file.
    unsafe { real_device_characteristics(file) & KEPT }
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite maps the shared memory of an open file, and has a place
    // for the address. Where there is none, that place holds null.
    let shim = unsafe {
        *out = ptr::null_mut();
        shim(file)
    };
    let mut machine = machine();
    let needed = (region as u64 + 1) * size as u64;
    let length = fs::metadata(with_suffix(&shim.path, "-shm")).map_or(0, |file| file.len());
    let grows = extend != 0 && needed > length;
    match machine.count(Operation::ShmMap { grows }, shim.kind) {
        // SAFETY: SQLite's own arguments.
        Verdict::Proceed => unsafe { real_shm_map(file, region, size, extend, out) },
        Verdict::Fail(code) | Verdict::Half(code) => code,
    }
}
