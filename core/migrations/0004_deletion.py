from tortoise import migrations
from tortoise.migrations import operations as ops
from core.models import LetterKind
from tortoise.fields.base import OnDelete
from uuid import uuid4
from tortoise import fields
from tortoise.indexes import Index

class Migration(migrations.Migration):
    dependencies = [('darkroom', '0003_checkouts')]

    initial = False

    operations = [
        ops.CreateModel(
            name='AccountDeletion',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('account', fields.OneToOneField('darkroom.Account', source_field='account_id', db_constraint=True, to_field='id', related_name='deletion', on_delete=OnDelete.CASCADE)),
                ('due_at', fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ('requested_at', fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={'table': 'account_deletion', 'app': 'darkroom', 'pk_attr': 'id', 'table_description': 'An account whose owner has left: nobody can reach it any more, and a batcher takes it apart.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Erasure',
            fields=[
                ('prefix', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=200)),
                ('due_at', fields.DatetimeField(db_index=True, auto_now=False, auto_now_add=False)),
                ('until', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'erasure', 'app': 'darkroom', 'pk_attr': 'prefix', 'table_description': 'Objects that nobody is to see again: a batcher deletes all whose keys begin with ``prefix``.'},
            bases=['Model'],
        ),
        ops.AddIndex(
            model_name='EmailToken',
            index=Index(fields=['account_id'], name='email_token_account'),
        ),
        ops.AlterField(
            model_name='Letter',
            name='account',
            field=fields.ForeignKeyField('darkroom.Account', source_field='account_id', null=True, db_constraint=True, to_field='id', related_name='letters', on_delete=OnDelete.CASCADE),
        ),
        ops.AlterField(
            model_name='Letter',
            name='kind',
            field=fields.CharEnumField(description='VERIFY_EMAIL: verify_email\nADDRESS_TAKEN: address_taken\nRESET_PASSWORD: reset_password\nPREMIUM_STARTED: premium_started\nPREMIUM_REVOKED: premium_revoked\nPAYMENT_FAILED: payment_failed\nGENERATION_FINISHED: generation_finished\nWINDOW_FINISHED: window_finished\nACCOUNT_DELETED: account_deleted', enum_type=LetterKind, max_length=24),
        ),
        ops.AddField(
            model_name='Letter',
            name='recipient',
            field=fields.CharField(null=True, max_length=254),
        ),
        ops.AddIndex(
            model_name='Letter',
            index=Index(fields=['account_id'], name='letter_account'),
        ),
        ops.AlterField(
            model_name='Purchase',
            name='account',
            field=fields.ForeignKeyField('darkroom.Account', source_field='account_id', null=True, db_constraint=True, to_field='id', related_name='purchases', on_delete=OnDelete.SET_NULL),
        ),
        # Altering the field leaves what the constraint does on deletion as it was.
        ops.RunSQL(
            'ALTER TABLE "purchase" DROP CONSTRAINT "purchase_account_id_fkey", '
            'ADD CONSTRAINT "purchase_account_id_fkey" FOREIGN KEY ("account_id") '
            'REFERENCES "account" ("id") ON DELETE SET NULL',
            reverse_sql='ALTER TABLE "purchase" DROP CONSTRAINT "purchase_account_id_fkey", '
            'ADD CONSTRAINT "purchase_account_id_fkey" FOREIGN KEY ("account_id") '
            'REFERENCES "account" ("id") ON DELETE CASCADE',
        ),
        ops.AddIndex(
            model_name='Purchase',
            index=Index(fields=['account_id'], name='purchase_account'),
        ),
        ops.AddIndex(
            model_name='RefreshToken',
            index=Index(fields=['family_id'], name='refresh_token_family'),
        ),
        ops.AddIndex(
            model_name='SessionFamily',
            index=Index(fields=['account_id'], name='session_family_account'),
        ),
        ops.AddIndex(
            model_name='WindowAccount',
            index=Index(fields=['account_id'], name='window_account_account'),
        ),
    ]
