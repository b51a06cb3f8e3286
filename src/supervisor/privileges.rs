//! Users and groups: who runs PHP, and who owns a socket.

#![forbid(unsafe_code)]

use std::ffi::CString;
use std::io;

use nix::unistd::{Gid, Group, Uid, User, getgid, getgrouplist, getuid, setgid, setgroups, setuid};
use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::config::Pool;

/// Who runs a pool's PHP. Looked up by the supervisor, so that a wrong name is found before anything starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    /// `None`: stays who it is.
    uid: Option<u32>,
    /// `None`: stays in its group.
    gid: Option<u32>,
    /// The user's groups; used with `uid`.
    groups: Vec<u32>,
    /// `USER` and `HOME` for scripts, as php-fpm sets them.
    name: Option<String>,
    home: Option<String>,
}

impl Account {
    /// For root: the account that the pool names.
    pub(super) fn of_pool(pool: &Pool, allow_root: bool) -> Result<Self, Error> {
        let mut account = Self::default();
        if let Some(value) = &pool.user {
            let found = user(pool, "user", value)?;
            account.uid = Some(found.uid.as_raw());
            account.gid = found.gid.map(Gid::as_raw);
            if let Some(entry) = found.entry {
                // Numbers are numbers: php-fpm sets no names for them.
                if !is_number(value) {
                    account.home = entry.dir.to_str().map(str::to_owned);
                    account.name = Some(entry.name.clone());
                }
                account.groups = groups(&entry, account.gid);
            }
        }
        if let Some(value) = &pool.group {
            account.gid = Some(group(pool, "group", value)?.as_raw());
        }
        // It would stay in root's.
        if let Some(value) = &pool.user
            && account.gid.is_none()
        {
            return Err(Error::NoGroup {
                pool: pool.name.clone(),
                directive: "user",
                value: value.clone(),
            });
        }
        // A number without an entry has no other groups.
        if let Some(gid) = account.gid
            && !account.groups.contains(&gid)
        {
            account.groups.push(gid);
        }
        // Root by another name, or by its number written differently.
        let root = |id: Option<u32>| id == Some(0) && !allow_root;
        for (directive, value, id) in [
            ("user", &pool.user, account.uid),
            (
                "group",
                pool.group.as_ref().map_or(&pool.user, |_| &pool.group),
                account.gid,
            ),
        ] {
            if root(id) {
                return Err(Error::Root {
                    pool: pool.name.clone(),
                    directive,
                    value: value.clone().unwrap_or_default(),
                });
            }
        }
        Ok(account)
    }

    /// For everybody else: who howdah runs as.
    pub(super) fn own() -> Self {
        let entry = User::from_uid(getuid()).ok().flatten();
        Self {
            home: entry
                .as_ref()
                .and_then(|entry| entry.dir.to_str().map(str::to_owned)),
            name: entry.map(|entry| entry.name),
            ..Self::default()
        }
    }

    /// `USER` and `HOME`, as far as the pool does not set them itself.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        [("USER", &self.name), ("HOME", &self.home)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    /// Becomes this account, for good.
    pub(super) fn assume(&self) -> io::Result<()> {
        if let Some(gid) = self.gid {
            setgid(Gid::from_raw(gid))?;
        }
        if let Some(uid) = self.uid {
            let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
            setgroups(&groups)?;
            let uid = Uid::from_raw(uid);
            setuid(uid)?;
            if getuid() != uid || (!uid.is_root() && setuid(Uid::from_raw(0)).is_ok()) {
                return Err(io::Error::other("the system let root's privileges stay"));
            }
        }
        if self.gid.is_some_and(|gid| getgid().as_raw() != gid) {
            return Err(io::Error::other("the system let root's group stay"));
        }
        Ok(())
    }
}

/// Who a Unix socket is given to. An owner's own group goes with him unless another one is named.
pub(super) fn socket_owner(pool: &Pool) -> Result<(Option<Uid>, Option<Gid>), Error> {
    let (mut uid, mut gid) = (None, None);
    if let Some(value) = &pool.listen.owner {
        let found = user(pool, "listen.owner", value)?;
        uid = Some(found.uid);
        gid = found.gid.filter(|_| !is_number(value));
    }
    if let Some(value) = &pool.listen.group {
        gid = Some(group(pool, "listen.group", value)?);
    }
    Ok((uid, gid))
}

/// Whether all accounts that a pool names exist: for `-t`, which everybody may run.
pub(super) fn check(pool: &Pool) -> Vec<Error> {
    let users = [("user", &pool.user), ("listen.owner", &pool.listen.owner)];
    let groups = [("group", &pool.group), ("listen.group", &pool.listen.group)];
    let users = users
        .into_iter()
        .filter_map(|(directive, value)| user(pool, directive, value.as_ref()?).err());
    let groups = groups
        .into_iter()
        .filter_map(|(directive, value)| group(pool, directive, value.as_ref()?).err());
    users.chain(groups).collect()
}

struct Found {
    uid: Uid,
    gid: Option<Gid>,
    /// A number need not have one.
    entry: Option<User>,
}

fn user(pool: &Pool, directive: &'static str, value: &str) -> Result<Found, Error> {
    let asked = Asked {
        pool,
        directive,
        value,
        kind: "user",
    };
    if is_number(value) {
        let uid = Uid::from_raw(value.parse().map_err(|_| asked.missing())?);
        let entry = User::from_uid(uid).map_err(|error| asked.failed(error.into()))?;
        return Ok(Found {
            uid,
            gid: entry.as_ref().map(|entry| entry.gid),
            entry,
        });
    }
    let entry = User::from_name(value)
        .map_err(|error| asked.failed(error.into()))?
        .ok_or_else(|| asked.missing())?;
    Ok(Found {
        uid: entry.uid,
        gid: Some(entry.gid),
        entry: Some(entry),
    })
}

fn group(pool: &Pool, directive: &'static str, value: &str) -> Result<Gid, Error> {
    let asked = Asked {
        pool,
        directive,
        value,
        kind: "group",
    };
    if is_number(value) {
        return Ok(Gid::from_raw(value.parse().map_err(|_| asked.missing())?));
    }
    Group::from_name(value)
        .map_err(|error| asked.failed(error.into()))?
        .map(|entry| entry.gid)
        .ok_or_else(|| asked.missing())
}

/// A name that was looked up, for the message if it leads nowhere.
struct Asked<'a> {
    pool: &'a Pool,
    directive: &'static str,
    value: &'a str,
    kind: &'static str,
}

impl Asked<'_> {
    fn missing(&self) -> Error {
        Error::NoAccount {
            pool: self.pool.name.clone(),
            directive: self.directive,
            value: self.value.to_owned(),
            kind: self.kind,
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Lookup {
            pool: self.pool.name.clone(),
            directive: self.directive,
            value: self.value.to_owned(),
            kind: self.kind,
            source,
        }
    }
}

/// As php-fpm sees it: digits are never a name.
fn is_number(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_digit())
}

/// What initgroups(3) would set.
fn groups(entry: &User, gid: Option<u32>) -> Vec<u32> {
    let gid = gid.map_or(entry.gid, Gid::from_raw);
    CString::new(entry.name.as_str())
        .ok()
        .and_then(|name| getgrouplist(&name, gid).ok())
        .unwrap_or_else(|| vec![gid])
        .into_iter()
        .map(Gid::as_raw)
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::pool;
    use super::*;

    fn with(user: Option<&str>, group: Option<&str>) -> Pool {
        Pool {
            user: user.map(str::to_owned),
            group: group.map(str::to_owned),
            ..pool()
        }
    }

    #[test]
    fn names_are_looked_up() {
        let account = Account::of_pool(&with(Some("nobody"), None), false).unwrap();
        let nobody = User::from_name("nobody").unwrap().unwrap();
        assert_eq!(account.uid, Some(nobody.uid.as_raw()));
        assert_eq!(account.gid, Some(nobody.gid.as_raw()));
        assert!(account.groups.contains(&nobody.gid.as_raw()));
        let variables: Vec<_> = account.variables().collect();
        assert_eq!(variables[0], ("USER", "nobody"));
        assert_eq!(variables[1].0, "HOME");
    }

    #[test]
    fn numbers_need_no_entry() {
        let account = Account::of_pool(&with(Some("54321"), Some("54322")), false).unwrap();
        assert_eq!((account.uid, account.gid), (Some(54321), Some(54322)));
        assert_eq!(account.groups, [54322]);
        assert_eq!(account.variables().count(), 0);
    }

    #[test]
    fn a_number_without_an_entry_has_no_group_of_its_own() {
        for allow_root in [false, true] {
            let error = Account::of_pool(&with(Some("54321"), None), allow_root).unwrap_err();
            assert_eq!(
                error.to_string(),
                "[pool www] user = 54321: there is no account of this number, and so none that names a group; set group"
            );
        }
    }

    #[test]
    fn nobody_becomes_root_unasked() {
        for (user, group) in [
            (Some("root"), None),
            (Some("0"), None),
            (Some("00"), None),
            (Some("nobody"), Some("0")),
            (Some("nobody"), Some("root")),
        ] {
            let pool = with(user, group);
            let error = Account::of_pool(&pool, false).unwrap_err();
            assert!(matches!(error, Error::Root { .. }), "{error}");
            assert!(Account::of_pool(&pool, true).is_ok());
        }
        assert_eq!(
            Account::of_pool(&with(None, None), true).unwrap(),
            Account::default()
        );
    }

    #[test]
    fn unknown_names_are_reported_with_their_directive() {
        let mut pool = with(Some("no-such-user"), Some("no-such-group"));
        pool.listen.owner = Some("no-such-owner".to_owned());
        pool.listen.group = Some("99999999999".to_owned());
        let errors: Vec<_> = check(&pool).iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 4, "{errors:?}");
        assert_eq!(
            errors[0],
            "[pool www] user = no-such-user: there is no user of this name; create it or correct the line"
        );
        for (error, name) in errors.iter().zip([
            "user = no-such-user",
            "listen.owner = no-such-owner",
            "group = no-such-group",
            "listen.group = 99999999999",
        ]) {
            assert!(error.contains(name), "{error}");
        }
        assert!(Account::of_pool(&pool, false).is_err());
        assert!(socket_owner(&pool).is_err());
    }

    #[test]
    fn a_sockets_owner_brings_his_group() {
        let mut pool = pool();
        assert_eq!(socket_owner(&pool).unwrap(), (None, None));
        let nobody = User::from_name("nobody").unwrap().unwrap();
        pool.listen.owner = Some("nobody".to_owned());
        assert_eq!(
            socket_owner(&pool).unwrap(),
            (Some(nobody.uid), Some(nobody.gid))
        );
        pool.listen.owner = Some("0".to_owned());
        assert_eq!(socket_owner(&pool).unwrap(), (Some(Uid::from_raw(0)), None));
        pool.listen.group = Some("7".to_owned());
        assert_eq!(socket_owner(&pool).unwrap().1, Some(Gid::from_raw(7)));
    }
}
