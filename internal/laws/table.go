package laws

import "slices"

// Table is all laws, by their numbers.
var Table = []Law{
	{
		Number: 1,
		Title:  "An error of the store is not the absence of a primary",
		Text:   `In trouble with the store the last good route stays, and says how old it is.`,
		Without: `a Consul agent is restarted or etcd has no quorum for a minute, the leader key cannot be seen, and a tool takes ` +
			`healthy primaries away from their clients: an outage of the store becomes one of every database.`,
		Guards: []Guard{
			{
				"law1-store-error-is-vacant", "keeps the holder that was read last while the store is in trouble",
				in("patroni", "TestTheStoreIsDown"),
			},
			{
				"law1-agent-moves-without-store", "leaves the pooler where it is while the store is in trouble",
				in("topology", "TestStoreDown"),
			},
			{
				"law1-controlplane-empties", "keeps the endpoints that were served last while the store is in trouble",
				in("topology", "TestControlPlaneNeverEmpties"),
			},
		},
		Tests: trials(
			"the store is gone, in failsafe mode", "the store is gone, without failsafe mode", "an agent is parted from the store",
			"the store loses its majority for a moment",
		),
	},
	{
		Number: 2,
		Title:  "The leader key is not a writable primary",
		Text: `Proof is a linearizable read of the key that began after the doubt, an answer of that member itself in one query (not in recovery, ` +
			`system identifier, timeline), and a second read that finds the key unchanged.`,
		Without: `Patroni takes the key first and promotes later, and its REST API says primary in the meantime: clients are sent to a ` +
			`server that still replays and get "read-only transaction" for as long as the promotion takes. An isolated old primary says ` +
			`that it is not in recovery, so that its answer alone proves nothing either.`,
		Guards: []Guard{
			{
				"law2-no-first-read", "takes no answer for a proof that began before the leader key was read",
				in("patroni", "TestAnAnswerBeforeTheFirstReadDoesNotCount"),
			},
			{
				"law2-no-second-read", "reads the leader key again after the answer, and wants the same creation of it",
				in("patroni", "TestProofIsReadProbeRead", "TestTheKeyIsMadeAnewBetweenTheReads"),
			},
			{
				"law2-elected-is-writable", "calls nobody writable for the leader key alone",
				in("patroni", "TestWhatIsNeverWritable", "TestALostProbe", "TestAnotherTimeline"),
			},
		},
		Tests: slices.Concat(
			in("patroni", "TestSQLProbe", "TestWritableIsOneReadAfterTheAnswer"),
			trials("the key's holder never gets writable"),
		),
	},
	{
		Number: 3,
		Title:  "Never back",
		Text:   `Each route carries an epoch that only grows; an older one is refused, whoever sends it.`,
		Without: `a primary that was out of breath takes the lock again, a late message arrives, or a store is restored from a backup, ` +
			`and a part of the fleet writes to the old primary while the others are on the new one.`,
		Guards: []Guard{
			{
				"law3-never-back", "follows a proven leadership only when its epoch is newer",
				in("topology", "TestOlderIsNeverRouted", "TestStartRemembersTheFile"),
			},
		},
		Tests: slices.Concat(
			in("patroni", "TestEpochCompare"), in("topology", "TestAgentAtRandom"),
			trials("a replica is promoted by hand", "the primary's Patroni is killed, not its PostgreSQL", "the primary's node is parted from everybody"),
		),
	},
	{
		Number: 4,
		Title:  "Levels, not edges",
		Text: `A watch yields the present state again and again, confirmed by a linearizable read at a bounded interval: an event that was missed ` +
			`repairs itself.`,
		Without: `a watch dies silently behind a connection that looks alive. The leader key never changes again, since only its lease ` +
			`is renewed, and the pooler stays on the old primary until a person restarts something.`,
		Guards: []Guard{
			{
				"law4-etcd-reads-again", "reads the keys again at an interval, whatever the events tell",
				in("dcs/etcd", "TestReadsAreRepeated"),
			},
			{
				"law4-zookeeper-reads-again", "reads the nodes again at an interval, whatever fires",
				in("dcs/zookeeper", "TestReadingsAreRepeated"),
			},
			{
				"law4-consul-asks-anew", "reads anew where the index of a blocking query did not grow",
				in("dcs/consul", "TestIndexRules", "TestNeverGoesBack"),
			},
		},
		Tests: slices.Concat(
			in("dcs/etcd", "TestContract", "TestWatchReplacesADeafStream", "TestConfirmationFindsWhatEventsDidNotTell"),
			in("dcs/consul", "TestContract"),
			in("dcs/zookeeper", "TestContract", "TestContractWithConfirmations", "TestSwallowedEvent"),
			in("dcs/memory", "TestDeafWatchLearnsAtItsNextConfirmation"),
		),
	},
	{
		Number: 5,
		Title:  "Each hold has an owner and a deadline",
		Text: `The clock is the agent's own. Nothing resumes onto a target that is not proven: at the deadline clients are refused at once, and ` +
			`served again when the proof comes.`,
		Without: `a deployment dies between PAUSE and RESUME, and all clients wait without an error until somebody finds out; or a script ` +
			`resumes in any case, onto whatever the old address is by then.`,
		Guards: []Guard{
			{
				"law5-no-deadline", "refuses clients when a hold has lasted as long as it may",
				in("topology", "TestDeadline", "TestOrphanedPause", "TestOperationLastsTooLong"),
			},
			{
				"law5-resume-unproven", "resumes on a proof alone, and at the deadline onto an address that refuses",
				in("topology", "TestDeadline", "TestOrphanedPause", "TestNothingIsProven"),
			},
		},
		Tests: slices.Concat(
			in("pooler", "TestStateSeesAnOrphanedPause", "TestRefuse"),
			trials("PostgreSQL stands still for 30 s", "a PgBouncer is restarted while it is held", "an agent and the primary are killed together"),
		),
	},
	{
		Number: 6,
		Title:  "All or none, until the point of no return",
		Text: `A fleet that cannot hold whole is released whole, before anything is sent to Patroni. After that, whoever holds keeps holding until ` +
			`proof or deadline.`,
		Without: `one pooler does not drain and the switchover goes on: its clients lose their transactions. Or the tool gives up half way ` +
			`and resumes the fleet onto a primary that is just being stopped.`,
		Guards: []Guard{
			{
				"law6-all-or-none", "calls the operation off when a pooler does not hold in time",
				in("topology", "TestOnePoolerDoesNotDrain"),
			},
			{
				"law6-no-way-back-after-the-switch", "releases nobody once Patroni may have begun",
				in("topology", "TestNothingIsProven", "TestCallerLeaves"),
			},
			{
				"law6-a-lost-order-releases-nobody", "keeps a pooler held when the order vanishes after the switch",
				in("topology", "TestOperationVanishesInTheSwitch", "TestOperationIsReplacedInTheSwitch"),
			},
		},
		Tests: slices.Concat(
			in("topology", "TestLeaseIsLost", "TestLeaseIsLostInTheHold"),
			in("topology/topologytest", "TestPlannedSwitchover"),
			in("examples/convoy", "TestCoordinatorKilled"),
		),
	},
	{
		Number: 7,
		Title:  "A write that was not answered has an unknown outcome",
		Text:   `It is reported as unknown, resolved by evidence, and never blindly sent again.`,
		Without: `the answer to a switchover is lost, the script takes that for a failure and sends it again: the cluster switches twice, ` +
			`the second time to where nobody wanted it.`,
		Guards: []Guard{
			{
				"law7-no-answer-is-unknown", "calls a request that was sent and not answered unknown",
				in("patroni", "TestClientErrors", "TestAnAnswerThatDoesNotCome"),
			},
			{
				"law7-gave-up-waiting-is-unknown", "tells a Patroni or a gateway that gave up waiting from one that refused",
				in("patroni", "TestClientErrors"),
			},
			{
				"law7-redirects-are-not-followed", "keeps a request from being sent to a second server",
				in("patroni", "TestClientErrors"),
			},
			{
				"law7-evidence-decides", "waits for a proven primary when the answer says nothing",
				in("topology", "TestAnswerIsLost"),
			},
			{
				"law7-a-silent-store-is-unknown", "tells a store that said no from one that said nothing",
				slices.Concat(in("dcs/consul", "TestOutcomes"), in("dcs/zookeeper", "TestErrorsSayWhatIsKnown")),
			},
		},
		Tests: slices.Concat(
			in("dcs/etcd", "TestContract"), in("dcs/consul", "TestContract"), in("dcs/zookeeper", "TestContract"),
			in("dcs/memory", "TestOutcomes"),
			in("examples/orders", "TestLostAnswer"),
		),
	},
	{
		Number: 8,
		Title:  "No debounce on a change of the primary",
		Text:   `Only while a push to the same target is under way are further changes taken together.`,
		Without: `a tool lets things settle before it writes the new target: its interval is added to every failover, and one flapping ` +
			`key keeps all clients waiting.`,
		Guards: []Guard{
			{
				"law8-debounce", "routes in the moment of the proof",
				in("topology", "TestLostPrimary", "TestSwitchover"),
			},
		},
	},
	{
		Number: 9,
		Title:  "Endpoints move by EDS alone",
		Text:   `A resource that was rejected is not sent again, and the end of registrations alone never takes an endpoint away or empties a service.`,
		Without: `the agents lose the store for a minute, their registrations expire, and the load balancer has no pooler left although ` +
			`each of them serves. Or a cluster that was changed as a whole is stuck while it warms up.`,
		Guards: []Guard{
			{
				"law9-refused-is-not-sent-again", "offers what an Envoy refused only when it has changed",
				in("envoyconf/xds", "TestRejectedIsNotSentAgain"),
			},
			{
				"law9-expiry-removes", "keeps the endpoint of a pooler whose registration has expired",
				in("topology", "TestControlPlaneServesTheRoster"),
			},
			{
				"law9-empty-published", "keeps the last endpoints of a service that has none any more",
				in("topology", "TestControlPlaneNeverEmpties"),
			},
		},
		Tests: slices.Concat(
			in("envoyconf/xds", "TestOtherTypesAreLeftUnanswered", "TestEnvoyFollows", "TestEnvoyRejects", "TestEnvoyKeepsItsEndpointsWithoutControlPlane"),
			trials("the control plane, all agents and Envoy are killed in turn"),
		),
	},
	{
		Number: 10,
		Title:  "Patroni's keys are only read",
		Text:   `Changes go through Patroni's REST API. The one exception is off by default: a fence that was confirmed ends a dead holder's lease.`,
		Without: `two programs believe that a key is theirs. One reverts what the other wrote, and a leader key that was deleted by hand ` +
			`makes two primaries.`,
		Guards: []Guard{
			{
				"law10-wake-goes-by-rest", "wakes Patroni through its REST API, not by a write to its configuration key",
				in("topology", "TestRights"),
			},
			{
				"law10-only-a-confirmed-fence-ends", "ends no claim unless the fencer has confirmed",
				in("topology", "TestFenceUnconfirmed", "TestFenceBound"),
			},
			{
				"law10-one-fencer-at-a-time", "fences under a lock that one fencer at a time has",
				in("topology", "TestFenceLocked"),
			},
		},
		Tests: slices.Concat(in("internal/laws", "TestRightsOnEtcd"), in("topology/topologytest", "TestNodeFenced", "TestFalselyFenced")),
	},
	{
		Number:  11,
		Title:   "Secrets never leave",
		Text:    `Not in logs, errors, printed values, views, or files that others can read.`,
		Without: `a connection string goes into an error, the error into a log, and the log to a place that everybody can search.`,
		Guards: []Guard{
			{
				"law11-secret-shown", "prints nothing of a secret of Patroni's, whatever the verb",
				in("patroni", "TestSecretsDoNotShow"),
			},
			{
				"law11-no-address-in-errors", "keeps an address that cannot be read, and may hold a password, out of the error",
				in("patroni", "TestWhatWasNotSentIsNotUnknown"),
			},
			{
				"law11-pooler-secrets-are-masked", "masks the values of PgBouncer's settings that are secret",
				in("pooler", "TestPrintingHidesSecrets"),
			},
			{
				"law11-files-are-private", "gives a new file no rights for others",
				slices.Concat(
					in("internal/atomicfile", "TestWriteMakesAPrivateFileAndKeepsTheModeOfAnOldOne"),
					in("pooler", "TestIniWriteFile"),
				),
			},
		},
		Tests: slices.Concat(in("pooler", "TestErrorsHoldNoSecret"), in("topology/ledger", "TestPasswordsStayInside")),
	},
	{
		Number: 12,
		Title:  "Least privilege",
		Text:   `Watching needs only the right to read; every further right is documented where it is needed.`,
		Without: `a dashboard has the rights of an administrator because nobody knows what it needs, and it is the dashboard that is ` +
			`broken into.`,
		Guards: []Guard{
			{
				"law12-own-cluster-alone", "watches the directory of the one cluster that was named, not that of all",
				slices.Concat(in("topology", "TestRights"), in("internal/laws", "TestRightsOnEtcd")),
			},
		},
		Tests: slices.Concat(
			in("dcs/etcd", "TestConfirmationByAReader"), in("dcs/consul", "TestWithRights"), in("dcs/zookeeper", "TestAccessControl"),
		),
	},
	{
		Number: 13,
		Title:  "By name, tolerant, and never silently wrong",
		Text: `Columns and fields are read by their names and unknown ones are passed over. What would be wrong in silence is refused: a record of ` +
			`a newer version, an agent that lacks an ability.`,
		Without: `PgBouncer gets a new column, a program that counts columns reads another figure as the number of its servers, and acts ` +
			`on it.`,
		Guards: []Guard{
			{
				"law13-columns-by-name", "finds the columns of PgBouncer's console by their names",
				in("pooler", "TestShowReadsColumnsByName"),
			},
			{
				"law13-newer-records-are-refused", "refuses a record of a version that it does not know",
				slices.Concat(in("internal/record", "TestDecode", "TestListings"), in("topology", "TestViewOfAnUnreadableRecord")),
			},
			{
				"law13-abilities-are-asked", "refuses a plan when an agent cannot hold for an operation",
				in("topology", "TestPlanRefuses"),
			},
		},
		Tests: slices.Concat(in("internal/record", "FuzzDecode"), in("patroni", "FuzzParse"), in("pooler", "TestParseIniAgreesWithPgBouncer")),
	},
	{
		Number: 14,
		Title:  "Whoever starts something waits for it",
		Text:   `Goroutines and processes end before what started them returns, also when that is killed.`,
		Without: `watches that nobody reads pile up until the store refuses connections, and a server that was left behind keeps the port ` +
			`or the data directory from its successor.`,
		Guards: []Guard{
			{
				"law14-run-does-not-wait", "returns from an agent's Run when all that it started has ended",
				in("topology", "TestRunWaits"),
			},
			{
				"law14-watch-is-awaited", "ends a watch's goroutine before its loop",
				in("dcs/internal/level", "TestLeavingTheLoopWaits"),
			},
			{
				"law14-processes-are-awaited", "kills what does not end when it is told to, and waits until it is gone",
				in("internal/proc", "TestRunKills"),
			},
		},
		Tests: slices.Concat(
			in("envoyconf/xds", "TestNoGoroutineIsLeft"),
			in("internal/proc", "TestTree", "TestDeath"),
			in("examples/quickstart", "TestKilled"),
		),
	},
}
