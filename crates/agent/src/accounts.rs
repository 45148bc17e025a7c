//! Users and groups of the guest, read from `/etc/passwd` and `/etc/group`.
//!
//! The agent is linked statically, so the C library's look-up (which loads plugins) is not available; and accounts
//! are made while a guest runs, so nothing is cached: every request loads anew.

use std::fs::File;
use std::io::{self, Read as _};

/// More of an account file than this is not read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// One line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// One line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Both files at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

impl Accounts {
    /// Reads both files; a file that cannot be read counts as empty, as it does for the C library.
    pub(crate) fn load() -> Self {
        let read = |path| read_bounded(path).unwrap_or_default();
        Self::parse(&read("/etc/passwd"), &read("/etc/group"))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        Self {
            users: passwd.lines().filter_map(parse_user).collect(),
            groups: group.lines().filter_map(parse_group).collect(),
        }
    }

    pub(crate) fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    pub(crate) fn user_of(&self, uid: u32) -> Option<&User> {
        self.users.iter().find(|user| user.uid == uid)
    }

    /// The user's name, or the number where nobody has it.
    pub(crate) fn user_name(&self, uid: u32) -> String {
        self.user_of(uid).map_or_else(|| uid.to_string(), |user| user.name.clone())
    }

    /// The group's name, or the number where no group has it.
    pub(crate) fn group_name(&self, gid: u32) -> String {
        let group = self.groups.iter().find(|group| group.gid == gid);
        group.map_or_else(|| gid.to_string(), |group| group.name.clone())
    }

    /// The number of the group with this name.
    pub(crate) fn gid(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|group| group.name == name).map(|group| group.gid)
    }

    /// All groups of the user, the primary one first.
    pub(crate) fn groups_of(&self, user: &User) -> Vec<u32> {
        let mut gids = vec![user.gid];
        for group in &self.groups {
            if group.members.contains(&user.name) && !gids.contains(&group.gid) {
                gids.push(group.gid);
            }
        }
        gids
    }

    /// Whether the user is in the group with this name, primarily or not.
    pub(crate) fn is_member(&self, user: &User, group: &str) -> bool {
        self.gid(group).is_some_and(|gid| self.groups_of(user).contains(&gid))
    }
}

fn read_bounded(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse_user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let _password = fields.next()?;
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let _comment = fields.next()?;
    let home = fields.next()?;
    let shell = fields.next().unwrap_or_default();
    Some(User { name: name.into(), uid, gid, home: home.into(), shell: shell.into() })
}

fn parse_group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let _password = fields.next()?;
    let gid = fields.next()?.parse().ok()?;
    let members = fields.next().unwrap_or_default();
    let members = members.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Some(Group { name: name.into(), gid, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::parse(
            "root:x:0:0:root:/root:/bin/bash\n#broken\nuser:x:1000:1000::/home/user:/bin/bash\nshort:x:5:5:\n",
            "root:x:0:\nsudo:x:27:user,other\nuser:x:1000:\ndocker:x:99:user\n",
        )
    }

    #[test]
    fn users_are_found_by_name_and_broken_lines_are_skipped() {
        let accounts = accounts();
        assert_eq!(accounts.user("user").unwrap().home, "/home/user");
        assert!(accounts.user("1000").is_none());
        assert!(accounts.user("short").is_none());
        assert_eq!(accounts.user_name(0), "root");
        assert_eq!(accounts.user_name(4242), "4242");
    }

    #[test]
    fn supplementary_groups_come_after_the_primary_one() {
        let accounts = accounts();
        let user = accounts.user("user").unwrap();
        assert_eq!(accounts.groups_of(user), [1000, 27, 99]);
        assert!(accounts.is_member(user, "sudo"));
        assert!(!accounts.is_member(accounts.user("root").unwrap(), "sudo"));
    }
}
