#!/bin/sh
# Makes the namespace and the search attributes of tasks, and returns once they can be used. Safe to
# run again: what is there already stays. TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE name the place.
set -eu

patiently() {
    tries=60
    until answer=$("$@" 2>&1); do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ]; then
            echo "gave up: $*: $answer" >&2
            exit 1
        fi
        sleep 2
    done
}

patiently temporal operator cluster health

if ! temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1; then
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION"
fi

# A new namespace takes some seconds to reach every part of the server, and so do its attributes.
patiently temporal operator search-attribute create --namespace "$TEMPORAL_NAMESPACE" \
    --name OrchestratorAgent --type Keyword \
    --name OrchestratorPattern --type Keyword \
    --name OrchestratorPriority --type Int \
    --name OrchestratorTenant --type Keyword \
    --name OrchestratorErrorType --type Keyword \
    --name OrchestratorBatch --type Keyword
patiently temporal workflow count --namespace "$TEMPORAL_NAMESPACE" \
    --query "OrchestratorAgent = 'none' AND OrchestratorBatch = 'none'"
echo "namespace $TEMPORAL_NAMESPACE is ready"
