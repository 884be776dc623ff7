from graphql import GraphQLObjectType, build_schema, is_introspection_type

from schema.__main__ import SDL_PATH, sdl


def test_the_committed_sdl_is_the_generated_one() -> None:
    assert SDL_PATH.read_text() == sdl(), "run `make schema`"


def test_every_type_field_and_argument_is_described() -> None:
    schema = build_schema(sdl())
    roots = {"Query", "Mutation", "Subscription"}
    missing = []
    for name, kind in schema.type_map.items():
        if is_introspection_type(kind) or name in {"Boolean", "Float", "ID", "Int", "String"}:
            continue
        if not kind.description and name not in roots:
            missing.append(name)
        for field_name, field in getattr(kind, "fields", {}).items():
            if not field.description:
                missing.append(f"{name}.{field_name}")
            if isinstance(kind, GraphQLObjectType):
                missing += [
                    f"{name}.{field_name}({argument_name})"
                    for argument_name, argument in field.args.items()
                    if not argument.description
                ]
    assert missing == []


def test_every_error_of_a_union_is_a_user_error() -> None:
    schema = build_schema(sdl())
    interface = schema.type_map["UserError"]
    errors = {kind.name for kind in schema.get_possible_types(interface)}  # type: ignore[arg-type] # it is the interface
    assert errors == {
        "AlreadyFinished",
        "EmailNotVerified",
        "InvalidCredentials",
        "InvalidInput",
        "InvalidToken",
        "InvalidVoucher",
        "NotFound",
        "PaymentUnavailable",
        "PremiumRequired",
        "QuotaExceeded",
        "RateLimited",
    }
