// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/memory"
	sqlite3 "modernc.org/sqlite/lib"
)

// describe registers what the server can do.
func (s *server) describe() {
	s.Alloc = memory.DefaultAllocator // else the first calls set it, all at once
	for id, v := range map[flightsql.SqlInfo]any{
		flightsql.SqlInfoFlightSqlServerName:                   "layover example: SQLite",
		flightsql.SqlInfoFlightSqlServerVersion:                "SQLite " + sqlite3.SQLITE_VERSION,
		flightsql.SqlInfoFlightSqlServerArrowVersion:           arrow.PkgVersion,
		flightsql.SqlInfoFlightSqlServerReadOnly:               false,
		flightsql.SqlInfoFlightSqlServerSql:                    true,
		flightsql.SqlInfoFlightSqlServerSubstrait:              false,
		flightsql.SqlInfoFlightSqlServerTransaction:            int32(flightsql.SqlTransactionSavepoint), // and so transactions
		flightsql.SqlInfoFlightSqlServerCancel:                 false,                                    // by the call's own cancellation
		flightsql.SqlInfoFlightSqlServerBulkIngestion:          false,
		flightsql.SqlInfoFlightSqlServerStatementTimeout:       int32(s.database.statement.Milliseconds()),
		flightsql.SqlInfoFlightSqlServerTransactionTimeout:     int32(s.transactionTimeout.Milliseconds()),
		flightsql.SqlInfoDDLCatalog:                            false,
		flightsql.SqlInfoDDLSchema:                             false,
		flightsql.SqlInfoDDLTable:                              true,
		flightsql.SqlInfoIdentifierCase:                        int64(flightsql.SqlCaseSensitivityCaseInsensitive),
		flightsql.SqlInfoIdentifierQuoteChar:                   `"`,
		flightsql.SqlInfoQuotedIdentifierCase:                  int64(flightsql.SqlCaseSensitivityCaseInsensitive),
		flightsql.SqlInfoAllTablesAreASelectable:               true,
		flightsql.SqlInfoNullOrdering:                          int64(flightsql.SqlNullOrderingSortLow),
		flightsql.SqlInfoTransactionsSupported:                 true,
		flightsql.SqlInfoSavePointsSupported:                   true,
		flightsql.SqlInfoBatchUpdatesSupported:                 true,
		flightsql.SqlInfoNamedParametersSupported:              false,
		flightsql.SqlInfoDataDefinitionCausesTransactionCommit: false,
		flightsql.SqlInfoDataDefinitionsInTransactionsIgnored:  false,
		flightsql.SqlInfoMaxStatementLen:                       int64(maxSQL),
		flightsql.SqlInfoMaxStatements:                         int64(maxPrepared),
		flightsql.SqlInfoMaxConnections:                        s.database.max,
	} {
		if err := s.RegisterSqlInfo(id, v); err != nil {
			panic(err) // a value of a type that Flight SQL does not have
		}
	}
}
