//! The file that holds the supervisor's process number.

#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::error::Error;

/// The file, which is removed when this is dropped.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    text: String,
}

impl PidFile {
    /// Writes this process's number. A file that is there is replaced, as php-fpm does, not written into: it may be a link
    /// to something else.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let text = std::process::id().to_string();
        let write = || -> io::Result<()> {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(path)?;
            file.write_all(text.as_bytes())
        };
        write().map_err(|source| Error::PidFile {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            text,
        })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A successor may have replaced it.
        if fs::read_to_string(&self.path).is_ok_and(|text| text == self.text) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_number_while_it_lives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        fs::write(&path, "1234567").unwrap();
        let file = PidFile::create(&path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            std::process::id().to_string()
        );
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_successors_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let file = PidFile::create(&path).unwrap();
        fs::write(&path, "1").unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn a_link_is_not_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("pid"), directory.path().join("other"));
        fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        drop(PidFile::create(&path).unwrap());
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = PidFile::create(Path::new("/nowhere/x.pid")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/x.pid"), "{error}");
    }
}
