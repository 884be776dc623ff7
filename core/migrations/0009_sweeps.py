from tortoise import migrations
from tortoise.migrations import operations as ops


def index(name: str, of: str) -> ops.RunSQL:
    """One that is made beside the table's use. What an attempt that failed half-way has left of it goes first."""
    drop = f'DROP INDEX CONCURRENTLY IF EXISTS {name}'
    return ops.RunSQL([drop, f'CREATE INDEX CONCURRENTLY {name} ON {of}'], drop)


class Migration(migrations.Migration):
    dependencies = [('darkroom', '0008_traces')]

    initial = False
    atomic = False

    operations = [
        index('refresh_token_expiry', 'refresh_token (expires_at)'),
        index('session_family_ended', 'session_family (ended_at) WHERE ended_at IS NOT NULL'),
        index('account_unproven', 'account (created_at) WHERE email_verified_at IS NULL AND premium_until IS NULL'),
        index('generation_end', 'generation (tier, finished_at) WHERE finished_at IS NOT NULL'),
    ]
