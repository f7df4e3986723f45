//! Where things are: the repository, and `.data`, which holds all that is fetched and all that the services write.
//!
//! Invariant: the path that `data_dir` returns can be reached by the user that PostgreSQL runs as.

use std::fs::{self, File, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

/// The repository that this program was built in.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}

/// `.data` in the repository, without symbolic links.
///
/// PostgreSQL refuses to run as root, so that root starts it as `nobody`, who cannot enter a clone under `/root` or in
/// another private directory. There `.data` is a link to a directory under `/var/tmp` (which survives a restart of the
/// machine) that carries a hash of the repository's path.
pub fn data_dir() -> Result<PathBuf> {
    static DATA_DIR: OnceLock<PathBuf> = OnceLock::new();
    if let Some(known) = DATA_DIR.get() {
        return Ok(known.clone());
    }
    let link = root().join(".data");
    let found = match unprivileged_user()? {
        Some(_) if !reachable(root())? => linked_data_dir(&link)?,
        _ => {
            fs::create_dir_all(&link).with_context(|| format!("creating {}", link.display()))?;
            link.canonicalize()?
        }
    };
    // Under a strict umask nobody but root could enter what root creates.
    fs::set_permissions(&found, Permissions::from_mode(0o755))?;
    Ok(DATA_DIR.get_or_init(|| found).clone())
}

/// A directory of one's own under `.data`, with its parents, open to the user that PostgreSQL runs as.
pub fn create_dir(path: &Path) -> Result<()> {
    let data_dir = data_dir()?;
    for dir in path.ancestors().take_while(|dir| *dir != data_dir).collect::<Vec<_>>().into_iter().rev() {
        if !dir.is_dir() {
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
            fs::set_permissions(dir, Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// User and group that root gives to PostgreSQL; `None` for anyone else, who runs it as himself.
///
/// `initdb` wants a name for its user, so that any free number will not do: every Unix has `nobody`.
pub fn unprivileged_user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("looking for the user nobody")?;
    match users.lines().find_map(nobody) {
        Some(ids) => Ok(Some(ids)),
        None => {
            bail!("PostgreSQL refuses to run as root and /etc/passwd has no user nobody: run as another user")
        }
    }
}

/// That directory is open to everybody, and so are all above it.
pub fn reachable(directory: &Path) -> Result<bool> {
    let directory =
        directory.canonicalize().with_context(|| format!("looking at {}", directory.display()))?;
    for dir in directory.ancestors() {
        if dir.metadata()?.mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn nobody(line: &str) -> Option<(u32, u32)> {
    let mut fields = line.strip_prefix("nobody:")?.split(':').skip(1);
    // macOS writes -2 for what is really the unsigned number.
    let mut id = || fields.next()?.parse::<i64>().ok().map(|id| id as u32);
    Some((id()?, id()?))
}

fn linked_data_dir(link: &Path) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    root().hash(&mut hasher);
    let target = PathBuf::from(format!("/var/tmp/task-api-{:016x}", hasher.finish()));
    if let Err(error) = fs::create_dir(&target)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(error).with_context(|| format!("creating {}", target.display()));
    }
    let metadata = target.symlink_metadata()?;
    ensure!(
        metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw(),
        "{} exists and is not ours, and everybody may write there: have a look, then remove it",
        target.display()
    );

    // Two processes at once must agree on which of them found the clone new.
    let lock = File::create(target.join("link.lock"))?;
    lock.lock()?;
    match link.symlink_metadata() {
        Ok(found) if found.is_symlink() && fs::read_link(link)? == target => {}
        Ok(_) => bail!(
            "PostgreSQL runs as nobody, who cannot reach {}: remove it, and it is made anew as a link to {}",
            link.display(),
            target.display()
        ),
        Err(_) => {
            // A new clone at an old path starts without data; what was fetched serves it as well.
            for stale in ["up", "test"] {
                let _ = fs::remove_dir_all(target.join(stale));
            }
            symlink(&target, link).with_context(|| format!("linking {}", link.display()))?;
        }
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_found_with_signed_and_unsigned_numbers() {
        assert_eq!(
            nobody("nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin"),
            Some((65534, 65533))
        );
        assert_eq!(
            nobody("nobody:*:-2:-2:Unprivileged User:/var/empty:/usr/bin/false"),
            Some((u32::MAX - 1, u32::MAX - 1))
        );
        assert_eq!(nobody("nobodyelse:x:1:1::/:/bin/sh"), None);
    }

    #[test]
    fn the_data_directory_is_open_to_the_user_that_postgresql_runs_as() {
        let dir = data_dir().unwrap();
        assert!(dir.is_dir());
        assert!(unprivileged_user().unwrap().is_none() || reachable(&dir).unwrap());
    }
}
