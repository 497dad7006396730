# Short names for what is typed every day. `make` alone lists them; the text
# after ## is what it shows.

IMAGE ?= sorteo:latest
CARGO ?= cargo
# The compose plugin where it is installed, the older program otherwise. A
# recursive variable, so that only a target that needs it asks.
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
# Set, to anything, `docker-compose-down` deletes the volumes too.
VOLUMES ?=

# The compose file reads both.
export IMAGE
export REVISION = $(shell git rev-parse --verify --quiet HEAD 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: docker-image
docker-image: ## Build the image (IMAGE=sorteo:latest)
	docker build --build-arg "REVISION=$(REVISION)" --tag "$(IMAGE)" .

.PHONY: docker-compose-up
docker-compose-up: docker-image ## Build, then start the server and five agencies: a whole draw
	$(COMPOSE) up --detach --remove-orphans

.PHONY: docker-compose-logs
docker-compose-logs: ## Follow the logs of the server and the agencies
	$(COMPOSE) logs --follow

.PHONY: docker-compose-down
docker-compose-down: ## Stop and remove the containers; VOLUMES=1 deletes the database and the data too
	$(COMPOSE) stop --timeout 15
	$(COMPOSE) down --remove-orphans $(if $(VOLUMES),--volumes)

.PHONY: demo
demo: ## Run a server and five agencies here, without containers
	$(CARGO) run --release --locked -- demo

.PHONY: test
test: ## Run the Rust tests
	$(CARGO) test --locked

.PHONY: test-container
test-container: ## Run the container test (Docker; root where no image can be pulled)
	tests/outside/container.sh
