//! Which file of the program imports which, read from the text of the sources.
//!
//! An arrow goes from a file that names something to the file that defines it: a name
//! that another file only re-exports is followed to its origin. Neither `mod child;`
//! nor a parent's `pub use` of its own child is an arrow. Tests inside of a file do not
//! count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::slice;

use super::tokens::{Import, Source};

/// The path of a module, first its crate: `sorteo`, or the folder of a crate.
pub type ModulePath = Vec<String>;
/// From the module that imports to the one that defines.
pub type Arrow = (ModulePath, ModulePath);

/// All modules of the program.
#[derive(Default)]
pub struct Program {
    pub modules: BTreeMap<ModulePath, Source>,
}

impl Program {
    /// Reads `src` and the `src` of each crate.
    pub fn read(root: &Path) -> Self {
        let mut program = Self::default();
        program.read_folder(&root.join("src"), &["sorteo".to_owned()]);
        for entry in fs::read_dir(root.join("crates")).unwrap() {
            let folder = entry.unwrap().path();
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            program.read_folder(&folder.join("src"), &[name]);
        }
        program
    }

    fn read_folder(&mut self, folder: &Path, module: &[String]) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let inner = [module, slice::from_ref(&name)].concat();
            if path.is_dir() {
                self.read_folder(&path, &inner);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let module = if name == "lib" { module.to_vec() } else { inner };
                self.modules.insert(module, Source::read(&fs::read_to_string(&path).unwrap()));
            }
        }
    }

    /// Every arrow between two files.
    pub fn arrows(&self) -> BTreeSet<Arrow> {
        let mut arrows = BTreeSet::new();
        for (module, source) in &self.modules {
            for Import { is_public, path, .. } in &source.imports {
                // A parent that re-exports what its child defines does not use it.
                let used = self.resolve(module, path, 0);
                arrows.extend(
                    used.filter(|used| !(*is_public && used.starts_with(module))).map(|used| (module, used)),
                );
            }
            arrows.extend(
                source.paths.iter().filter_map(|path| Some((module, self.resolve(module, path, 0)?))),
            );
        }
        let between = arrows.into_iter().filter(|(module, used)| *module != used);
        between.map(|(module, used)| (module.clone(), used)).collect()
    }

    /// The module that defines what a path names in a module; `None` if it is not of this program.
    fn resolve(&self, module: &ModulePath, path: &[String], depth: usize) -> Option<ModulePath> {
        const DEPTH_MAX: usize = 20;
        let (first, rest) = path.split_first().filter(|_| depth < DEPTH_MAX)?;
        let child = [&module[..], slice::from_ref(first)].concat();
        match first.as_str() {
            "crate" => return self.descend(module[..1].to_vec(), rest, depth),
            "self" => return self.descend(module.clone(), rest, depth),
            "super" => return self.descend(module[..module.len() - 1].to_vec(), rest, depth),
            _ if self.modules.contains_key(&child) => return self.descend(child, rest, depth),
            _ => {}
        }
        let imported = self.modules[module].imports.iter().find(|import| import.name == *first);
        if let Some(Import { path: used, .. }) = imported.filter(|import| import.path[0] != *first)
            && !rest.is_empty()
        {
            return self.resolve(module, &[used, rest].concat(), depth + 1);
        }
        let crate_name = if first == "sorteo" { "sorteo" } else { first.strip_prefix("sorteo_")? };
        let root = vec![crate_name.to_owned()];
        if self.modules.contains_key(&root) { self.descend(root, rest, depth) } else { None }
    }

    /// Follows the rest of a path from a module on.
    fn descend(&self, mut module: ModulePath, mut rest: &[String], depth: usize) -> Option<ModulePath> {
        while let Some((first, behind)) = rest.split_first() {
            let child = [&module[..], slice::from_ref(first)].concat();
            if first == "super" {
                module.pop();
            } else if self.modules.contains_key(&child) {
                module = child;
            } else {
                break;
            }
            rest = behind;
        }
        let source = self.modules.get(&module)?;
        let Some((name, behind)) = rest.split_first().filter(|(name, _)| !source.defined.contains(*name))
        else {
            return Some(module);
        };
        if module.len() == 1 {
            let exports = |(other, source): &(&ModulePath, &Source)| {
                other[0] == module[0] && source.exported_macros.contains(name)
            };
            if let Some((other, _)) = self.modules.iter().find(exports) {
                return Some(other.clone());
            }
        }
        if let Some(Import { path, .. }) = source.imports.iter().find(|import| import.name == *name) {
            let origin = self.resolve(&module, &[path, behind].concat(), depth + 1);
            return origin.or(Some(module));
        }
        for Import { path, .. } in source.imports.iter().filter(|import| import.name == "*") {
            let of_all = self.resolve(&module, &path[..path.len() - 1], depth + 1);
            if let Some(of_all) = of_all.filter(|of_all| self.modules[of_all].defined.contains(name)) {
                return Some(of_all);
            }
        }
        Some(module)
    }
}
