#!/bin/sh
# Makes Temporal's two databases, or brings them to this release's schema. Safe to run again: what
# is there already stays. SQL_HOST, SQL_USER and their like name the database server.
set -eu

prepare() {
    database=$1
    schema=$2
    temporal-sql-tool --database "$database" create-database
    temporal-sql-tool --database "$database" setup-schema --version 0.0
    temporal-sql-tool --database "$database" update-schema --schema-name "$schema"
}

prepare temporal postgresql/v12/temporal
prepare temporal_visibility postgresql/v12/visibility
