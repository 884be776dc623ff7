from tortoise import migrations
from tortoise.migrations import operations as ops
from core.models import LetterKind
from tortoise import fields
from tortoise.indexes import Index

class Migration(migrations.Migration):
    dependencies = [('darkroom', '0005_windows')]

    initial = False

    operations = [
        ops.AddField(
            model_name='Account',
            name='bounce_reason',
            field=fields.TextField(null=True, unique=False),
        ),
        ops.AddField(
            model_name='Account',
            name='bounced_at',
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.AddField(
            model_name='Account',
            name='reminders_off_at',
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.AlterField(
            model_name='Letter',
            name='kind',
            field=fields.CharEnumField(description='VERIFY_EMAIL: verify_email\nADDRESS_TAKEN: address_taken\nRESET_PASSWORD: reset_password\nPREMIUM_STARTED: premium_started\nPREMIUM_ENDS_SOON: premium_ends_soon\nPREMIUM_REVOKED: premium_revoked\nPAYMENT_FAILED: payment_failed\nGENERATION_FINISHED: generation_finished\nWINDOW_FINISHED: window_finished\nACCOUNT_DELETED: account_deleted', enum_type=LetterKind, max_length=24),
        ),
        ops.AddField(
            model_name='Purchase',
            name='reminded_at',
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.AddIndex(
            model_name='Purchase',
            index=Index(fields=['ends_at'], name='purchase_end'),
        ),
    ]
