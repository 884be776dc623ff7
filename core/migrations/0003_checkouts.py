from tortoise import migrations
from tortoise.migrations import operations as ops
from core.models import LetterKind
from tortoise.fields.base import OnDelete
from uuid import uuid4
from tortoise import fields
from tortoise.indexes import Index

class Migration(migrations.Migration):
    dependencies = [('darkroom', '0002_limits')]

    initial = False

    operations = [
        ops.CreateModel(
            name='Checkout',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('account', fields.ForeignKeyField('darkroom.Account', source_field='account_id', null=True, db_constraint=True, to_field='id', related_name='checkouts', on_delete=OnDelete.SET_NULL)),
                ('session', fields.CharField(unique=True, max_length=200)),
                ('payment', fields.CharField(null=True, max_length=200)),
                ('days', fields.IntField()),
                ('price', fields.IntField()),
                ('currency', fields.CharField(max_length=3)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ('paid_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('reversed_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'checkout', 'app': 'darkroom', 'indexes': [Index(fields=['account_id'], name='checkout_account')], 'pk_attr': 'id', 'table_description': "A page on which somebody may pay for premium time. Prices are in the currency's minor unit."},
            bases=['Model'],
        ),
        ops.AlterField(
            model_name='Letter',
            name='kind',
            field=fields.CharEnumField(description='VERIFY_EMAIL: verify_email\nADDRESS_TAKEN: address_taken\nRESET_PASSWORD: reset_password\nPREMIUM_STARTED: premium_started\nPREMIUM_REVOKED: premium_revoked\nPAYMENT_FAILED: payment_failed\nGENERATION_FINISHED: generation_finished\nWINDOW_FINISHED: window_finished', enum_type=LetterKind, max_length=24),
        ),
        ops.AddField(
            model_name='Purchase',
            name='revoked_at',
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
    ]
