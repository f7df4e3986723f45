//! The schema: brought up to date where this sidecar may and must, and otherwise checked to be one that it can work with.
//!
//! Invariant: a sidecar starts on a newer schema only if the database says that it may, and needs no right to change a
//! schema in which everything is applied.

use anyhow::{Context as _, Result, bail};
use deadpool_postgres::{ClientWrapper, Object};
use refinery::Migration;
use tokio_postgres::error::SqlState;

use super::Outbox;

mod migrations {
    refinery::embed_migrations!("../migrations");
}

/// The lock under which one sidecar at a time applies the migrations; the number is arbitrary, but
/// the same in each of them.
const MIGRATION_LOCK: i64 = 0x7461_736b_5f6d_6967;

/// What the schema is to this sidecar.
#[derive(Debug, Eq, PartialEq)]
enum Schema {
    /// Every migration of this sidecar is applied, and no other.
    Present,
    /// It has migrations that this sidecar does not know, up to this one, and says that it may be used.
    Newer(i32),
    /// Migrations are missing.
    Older,
}

/// The schema has changed in a way that this sidecar does not know.
#[derive(Debug, thiserror::Error)]
#[error(
    "the schema needs a sidecar that knows version {minimum} of it, but this one knows {newest}: start a newer one"
)]
pub struct TooOld {
    minimum: i32,
    newest: i32,
}

impl TooOld {
    /// # Errors
    /// When this sidecar is older than the oldest that may work with the schema.
    pub fn check(minimum: i32) -> Result<(), TooOld> {
        TooOld::check_own(newest(migrations::migrations::runner().get_migrations()), minimum)
    }

    fn check_own(newest: i32, minimum: i32) -> Result<(), TooOld> {
        if newest >= minimum { Ok(()) } else { Err(TooOld { minimum, newest }) }
    }
}

fn newest(migrations: &[Migration]) -> i32 {
    migrations.iter().map(Migration::version).max().unwrap_or(0)
}

impl Outbox {
    /// Brings the schema up to date, and gives its version. Several sidecars that start together do so one after the other.
    ///
    /// # Errors
    /// When the schema needs a newer sidecar, or when a migration is missing that the role may not apply.
    pub async fn migrate(&self) -> Result<i32> {
        // Detached from the pool: closing it gives the lock back whatever happens in between.
        let mut client = Object::take(self.connection().await?);
        if let Some(version) = self.usable(&mut client).await? {
            return Ok(version);
        }
        let lock = async {
            // A migration may read whole tables.
            client.batch_execute("reset enable_seqscan; reset jit").await?;
            client.execute("select pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await
        };
        tokio::time::timeout(self.call_timeout, lock)
            .await
            .context("another sidecar is applying the migrations, or PostgreSQL does not answer")??;
        // No deadline here: on a large table it takes what it takes, and an end in the middle would only
        // begin it anew.
        if let Err(error) = migrations::migrations::runner().run_async(&mut *client).await {
            let error = anyhow::Error::from(error);
            return Err(match is_forbidden(&error) {
                true => error.context(self.forbidden(&client).await?),
                false => error.context("applying the migrations"),
            });
        }
        self.usable(&mut client).await?.context("the migrations were applied, and are not all there")
    }

    /// The version of the schema, if nothing has to be applied.
    async fn usable(&self, client: &mut ClientWrapper) -> Result<Option<i32>> {
        let look = async {
            let runner = migrations::migrations::runner();
            let own = runner.get_migrations();
            let exists = "select to_regclass('refinery_schema_history') is not null,
                                 to_regclass('schema_compatibility') is not null";
            let exists = client.query_one(exists, &[]).await?;
            let applied = match exists.try_get(0)? {
                true => runner.get_applied_migrations_async(&mut **client).await?,
                false => Vec::new(),
            };
            let minimum = match exists.try_get(1)? {
                true => client.query_opt("select minimum_version from schema_compatibility", &[]).await?,
                false => None,
            };
            let minimum = minimum.map(|row| row.try_get(0)).transpose()?;
            let newest = newest(own);
            Ok(match judge(own, &applied, minimum)? {
                Schema::Present => Some(newest),
                Schema::Newer(version) => {
                    tracing::info!(
                        version,
                        newest,
                        "the schema is newer than this sidecar, which can use it"
                    );
                    Some(version)
                }
                Schema::Older => None,
            })
        };
        self.timed(look).await?.context("checking the schema's version")
    }

    /// Which role lacks what.
    async fn forbidden(&self, client: &ClientWrapper) -> Result<String> {
        let row = client.query_one("select current_user::text, current_schema()::text", &[]).await?;
        let (role, schema): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        let schema = schema.unwrap_or_else(|| "public".to_owned());
        Ok(format!(
            "migrations are missing and the role {role} may not apply them: run `kafka-sidecar migrate` as the owner of \
             the tables, or as a role with CREATE on the schema {schema} if there are none yet"
        ))
    }
}

/// # Errors
/// When the schema is none that this sidecar can use, or migrate.
fn judge(own: &[Migration], applied: &[Migration], minimum: Option<i32>) -> Result<Schema> {
    let (newest, version) = (newest(own), newest(applied));
    // One that differs is not contained; refinery says which.
    let missing = own.iter().find(|migration| !applied.contains(migration));
    if version <= newest {
        return Ok(if missing.is_none() { Schema::Present } else { Schema::Older });
    }
    TooOld::check_own(newest, minimum.unwrap_or(version))?;
    if let Some(missing) = missing {
        bail!("the schema has version {version}, but not this sidecar's migration {missing}");
    }
    Ok(Schema::Newer(version))
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    let database_error = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<tokio_postgres::Error>()?.code().cloned()
    };
    error.chain().find_map(database_error) == Some(SqlState::INSUFFICIENT_PRIVILEGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migrations(versions: &[i32]) -> Vec<Migration> {
        let name = |version: &i32| format!("V{version}__migration_{version}");
        versions.iter().map(|version| Migration::unapplied(&name(version), "select 1").unwrap()).collect()
    }

    #[test]
    fn a_newer_schema_is_used_if_it_says_so() {
        let own = migrations(&[1, 2]);
        let judged = |applied: &[i32], minimum| judge(&own, &migrations(applied), minimum);
        assert_eq!(judged(&[], None).unwrap(), Schema::Older);
        assert_eq!(judged(&[1], Some(9)).unwrap(), Schema::Older);
        assert_eq!(judged(&[1, 2], Some(2)).unwrap(), Schema::Present);
        assert_eq!(judged(&[1, 2, 3], Some(2)).unwrap(), Schema::Newer(3));
        for (applied, minimum, expected) in [
            (&[1, 2, 3][..], Some(3), "start a newer one"),
            (&[1, 2, 3], None, "start a newer one"),
            (&[1, 3], Some(1), "not this sidecar's migration V2"),
        ] {
            let error = judged(applied, minimum).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_migration_that_differs_is_not_taken_for_applied() {
        let other = vec![Migration::unapplied("V1__migration_1", "select 2").unwrap()];
        assert_eq!(judge(&migrations(&[1]), &other, None).unwrap(), Schema::Older);
    }
}
